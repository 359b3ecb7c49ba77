package view

import "io"

// IO is where a command reads from and writes to. Commands never touch
// os.Stdout themselves, so that a test can look at what they print both as a
// terminal and as a pipe.
type IO struct {
	In  io.Reader
	Out io.Writer // results, and nothing else: what a pipe wants
	Err io.Writer // progress, warnings, errors

	// TTY reports whether Err is a terminal, so that progress may redraw itself.
	TTY bool
	// Ask reports whether a person can be asked: In is a terminal, too.
	Ask bool
	// GitHub reports whether errors and warnings are also written as annotations of
	// GitHub Actions.
	GitHub bool
	// Color reports whether escape sequences may be used on Err and Out.
	Color bool
	// Width is the number of columns of the terminal, 80 when unknown.
	Width int
}
