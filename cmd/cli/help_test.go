package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Every command says what it is for and shows a command line of its own;
// what stands in examples is taken by the flags and arguments of its command.
func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	root := func() *cobra.Command {
		return newRoot(&IO{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	}
	check := func(line string) (of string) {
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " < ")
		_, line, ok := strings.Cut(strings.Trim(line, " )\"\n"), "drover ")
		if !ok {
			return "" // of another program
		}
		r := root()
		cmd, args, err := r.Find(normalizeFlags(r, words(line)))
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err == nil {
			err = cmd.ValidateArgs(cmd.Flags().Args())
		}
		if err != nil {
			t.Errorf("example %q: %v", line, err)
		}
		return cmd.CommandPath()
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		path, own := cmd.CommandPath(), false
		for line := range strings.Lines(cmd.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example %q does not begin with two spaces", path, line)
			}
			for part := range strings.SplitSeq(line, " && ") {
				own = strings.HasPrefix(check(part), path) || own
			}
		}
		if cmd.Short == "" || !own {
			t.Errorf("%s: Short %q, Example %q: both are needed", path, cmd.Short, cmd.Example)
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && !sub.IsAdditionalHelpTopicCommand() {
				walk(sub)
			}
		}
	}
	walk(root())
}

// A flag that is shown does something: what is about a stack as a whole shows
// neither --service nor --target.
func TestShownFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		command         string
		service, target bool
	}{
		{"deploy", true, true}, {"plan", true, true}, {"status", true, true}, {"lint", true, true},
		{"logs", false, true}, {"secrets set", false, true}, {"secrets rotate", false, true}, {"secrets import", false, true},
		{"secrets list", false, false}, {"secrets show", false, false}, {"secrets export", false, false}, {"check", false, false},
		{"dns plan", false, false}, {"dns apply", false, false}, {"dns list", false, false},
		{"cert issue", false, false}, {"cert prepare", false, false}, {"cert renew", false, false},
	} {
		var out strings.Builder
		if code := Run(t.Context(), &IO{In: strings.NewReader(""), Out: &out, Err: io.Discard}, append(strings.Fields(c.command), "--help")); code != exitOK {
			t.Fatalf("%s --help ended with %d", c.command, code)
		}
		for flag, want := range map[string]bool{"--service ": c.service, "--target ": c.target} {
			if got := strings.Contains(out.String(), flag); got != want {
				t.Errorf("%s shows %s: %v, want %v", c.command, flag, got, want)
			}
		}
	}
}

// words splits a line as a shell does, as far as examples need it.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}
