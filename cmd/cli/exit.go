package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
)

// Exit codes of every command. They are listed in docs/reference/exit-codes.md
// and by `drover help exit-codes`; a test keeps the three equal.
const (
	exitOK         = 0
	exitError      = 1   // something failed that has no code of its own
	exitUsage      = 2   // bad flags, bad stack, bad values: nothing was done
	exitFailed     = 3   // a deployment failed and was not rolled back
	exitReverted   = 4   // a deployment failed and Nomad rolled it back
	exitPromotion  = 5   // canaries are healthy and wait for a promotion
	exitSuperseded = 6   // another client changed a job meanwhile
	exitPlacement  = 7   // no node can take an allocation
	exitTimeout    = 8   // not healthy within --timeout
	exitCheck      = 9   // a check of the stack failed
	exitCluster    = 10  // Nomad or Consul is unreachable, refuses the token, or is too old
	exitBusy       = 11  // another process changes the stack, or a release is open
	exitCancelled  = 130 // Ctrl-C or SIGTERM, after a report of what was done
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

// errTold is an error that was already printed as the last line of -o json.
type errTold struct{ error }

func (e errTold) Unwrap() error { return e.error }

// errRefused is an error with an exit code of its own.
type errRefused struct {
	error
	code int
}

func (e errRefused) Unwrap() error { return e.error }

// exitCode maps an error to the code the process ends with.
func exitCode(err error) int {
	var (
		silent errSilent
		usage  errUsage
		diags  hcl.Diagnostics
		refuse errRefused
		moved  *release.StalePlanError
		wrong  *deploy.InvalidError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &silent):
		return silent.code
	case errors.As(err, &refuse):
		return refuse.code
	case errors.As(err, &usage), errors.As(err, &wrong), errors.As(err, &diags):
		return exitUsage
	case errors.As(err, &moved):
		return exitSuperseded
	case errors.Is(err, context.Canceled), errors.Is(err, deploy.ErrDeclined):
		return exitCancelled
	case asClusterError(err) != nil:
		return exitCluster
	}
	return exitError
}

// printError writes err for a person: diagnostics one by one as
// file:line:column, everything else on one line.
func printError(w io.Writer, err error) {
	var (
		silent errSilent
		diags  hcl.Diagnostics
		refuse errRefused
	)
	switch {
	case err == nil, errors.As(err, &silent):
	case errors.As(err, &diags):
		for _, d := range diags {
			fmt.Fprintln(w, formatDiagnostic(d))
		}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "Interrupted.")
	case asClusterError(err) != nil && !errors.As(err, &refuse):
		fmt.Fprintf(w, "Error: %s\n", asClusterError(err))
	default:
		fmt.Fprintf(w, "Error: %s%s\n", err, recordHint(err))
	}
}

// errorText returns what printError writes, without "Error: " and the line break.
func errorText(err error) string {
	var b strings.Builder
	printError(&b, err)
	return strings.TrimPrefix(strings.TrimSpace(b.String()), "Error: ")
}

// asClusterError returns the failure of the cluster itself in err, nil if there
// is none.
func asClusterError(err error) *nomad.ClusterError {
	e, _ := nomad.AsClusterError(err, api.DefaultConfig().Address)
	return e
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

// oneOf checks the value of a flag.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if a == value {
			return nil
		}
	}
	return usagef("%s cannot be %q; it is %s", flag, value, strings.Join(allowed, " or "))
}
