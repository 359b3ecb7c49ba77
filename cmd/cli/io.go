package cli

import (
	"os"

	"golang.org/x/term"

	"github.com/drover-nomad/drover/cmd/cli/view"
)

// IO is where a command reads from and writes to.
type IO = view.IO

// systemIO is the process's own standard streams. NO_COLOR (no-color.org)
// and TERM=dumb switch colour and redrawing off.
func systemIO() *IO {
	s := &IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Width: 80}
	fd := int(os.Stderr.Fd())
	if term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		s.TTY = true
		s.Ask = term.IsTerminal(int(os.Stdin.Fd()))
		s.Color = os.Getenv("NO_COLOR") == "" && term.IsTerminal(int(os.Stdout.Fd()))
		if w, _, err := term.GetSize(fd); err == nil && w > 0 {
			s.Width = w
		}
	}
	return s
}
