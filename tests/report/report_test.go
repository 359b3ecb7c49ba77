package report_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/tests/report"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type row struct {
	Seed   int
	Result string
}

func sameSeed(a, b row) bool { return a.Seed == b.Seed }

func TestRows_KeepsTheLastOfEachSeed(t *testing.T) {
	t.Parallel()
	got, err := report.Rows(write(t, `{"Seed":1,"Result":"failed"}
{"Seed":2,"Result":"ok"}
{"Seed":1,"Result":"ok"}
`), sameSeed)
	if want := []row{{2, "ok"}, {1, "ok"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	broken := write(t, "{\n")
	if _, err := report.Rows(broken, sameSeed); err == nil || !strings.Contains(err.Error(), broken) {
		t.Errorf("a broken line: got %v, want an error that names the file", err)
	}
}

func TestWrite_ReplacesWhatIsBetweenTheMarkers(t *testing.T) {
	t.Parallel()
	page := write(t, "head\n<!-- from -->\nold\n<!-- to -->\ntail\n")
	if err := report.Write(page, "<!-- from -->\n", "<!-- to -->\n", "new\n"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text), "head\n<!-- from -->\nnew\n<!-- to -->\ntail\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := report.Write(page, "<!-- other -->", "<!-- to -->", ""); err == nil {
		t.Error("without the first marker: got no error")
	}
}
