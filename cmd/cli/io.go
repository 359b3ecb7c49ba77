package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// IO is where a command reads from and writes to. Commands never touch
// os.Stdout themselves, so that a test can look at what they print both as a
// terminal and as a pipe.
type IO struct {
	In  io.Reader
	Out io.Writer // results, and nothing else: what a pipe wants
	Err io.Writer // progress, warnings, errors

	// TTY says that Err is a terminal, so progress may redraw itself.
	TTY bool
	// Ask says that a person can be asked: In is a terminal, too.
	Ask bool
	// GitHub says that what went wrong is told to GitHub Actions, too.
	GitHub bool
	// Color says that escape sequences may be used on Err and Out.
	Color bool
	// Width is the number of columns of the terminal, 80 when unknown.
	Width int
}

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
