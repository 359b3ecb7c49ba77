package cli

import (
	"io"
	"strings"
	"testing"
)

func TestUnknownCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line, want string
	}{
		{"histroy", `drover: unknown command "histroy"; did you mean "drover history"?`},
		{"histroy . -e dev", `drover: unknown command "histroy"; did you mean "drover history"?`},
		{"--github histroy . --env=dev", `drover: unknown command "histroy"; did you mean "drover history"?`},
		{"secrets lst . -e dev", `drover secrets: unknown command "lst"; did you mean "drover secrets list"?`},
		{"cert account shwo", `drover cert account: unknown command "shwo"; did you mean "drover cert account show"?`},
		{"frobnicate -e dev", `drover: unknown command "frobnicate"`},
		{"secrets --no-such-flag", `drover secrets: unknown flag: --no-such-flag`},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			code := Run(t.Context(), &IO{In: strings.NewReader(""), Out: io.Discard, Err: &out}, strings.Fields(c.line))
			got, _, _ := strings.Cut(out.String(), "\n")
			if want := "Error: " + c.want; code != exitUsage || got != want {
				t.Errorf("got exit code %d and %q, want %d and %q", code, got, exitUsage, want)
			}
		})
	}
}
