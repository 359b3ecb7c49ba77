package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Exit codes of every command. They are listed in docs/reference/exit-codes.md
// and by `drover help exit-codes`; a test keeps the three equal.
const (
	exitOK        = 0
	exitError     = 1   // something failed that has no code of its own
	exitUsage     = 2   // bad flags, bad stack, bad values: nothing was done
	exitCancelled = 130 // Ctrl-C or SIGTERM: what was done so far was said
)

// errUsage marks a mistake on the command line; its usage line is printed.
type errUsage struct{ msg string }

func (e errUsage) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return errUsage{fmt.Sprintf(format, args...)}
}

// errSilent ends a command with a code after it has said everything itself.
type errSilent struct{ code int }

func (e errSilent) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode maps an error to the code the process ends with.
func exitCode(err error) int {
	var (
		silent errSilent
		usage  errUsage
		diags  hcl.Diagnostics
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &usage), errors.As(err, &diags):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitCancelled
	}
	return exitError
}

// printError writes err for a person: diagnostics one by one as
// file:line:column, everything else on one line.
func printError(w io.Writer, err error) {
	var (
		silent errSilent
		diags  hcl.Diagnostics
	)
	switch {
	case err == nil, errors.As(err, &silent):
	case errors.As(err, &diags):
		for _, d := range diags {
			fmt.Fprintln(w, formatDiagnostic(d))
		}
	default:
		fmt.Fprintf(w, "Error: %s\n", err)
	}
}

// formatDiagnostic is "file:line:column: error: summary; detail", the form
// that editors and CI annotations understand.
func formatDiagnostic(d *hcl.Diagnostic) string {
	var b strings.Builder
	if d.Subject != nil {
		fmt.Fprintf(&b, "%s:%d:%d: ", d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column)
	}
	if d.Severity == hcl.DiagWarning {
		b.WriteString("warning: ")
	} else {
		b.WriteString("error: ")
	}
	b.WriteString(strings.TrimSuffix(d.Summary, "."))
	if d.Detail != "" {
		b.WriteString("; ")
		b.WriteString(d.Detail)
	}
	return b.String()
}
