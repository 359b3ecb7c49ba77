package deploy

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// Class is what a caller can do about an error.
type Class int

// The classes of errors.
const (
	ClassNone        Class = iota // no error
	ClassOther                    // read the message
	ClassInvalid                  // correct the options, the stack or its values: nothing was done
	ClassBusy                     // wait, or resume or abort the release that is open: nothing was done
	ClassStale                    // plan again: the cluster is not what the saved plan was made for
	ClassUnplaceable              // add a node: no node has room
	ClassCluster                  // Nomad or Consul cannot be reached, refuses the token, or is too old
	ClassCancelled                // the context was cancelled, or the person said no
	ClassOutcome                  // a release was made: see OutcomeError.Outcome
)

// ClassOf returns the class of an error of this package or of one below it.
func ClassOf(err error) Class {
	var outcome *OutcomeError
	switch {
	case err == nil:
		return ClassNone
	case errors.As(err, &outcome):
		return ClassOutcome
	case errors.Is(err, ErrDeclined):
		return ClassCancelled
	case is[*rollout.Unplaceable](err):
		return ClassUnplaceable
	case invalid(err):
		return ClassInvalid
	case errors.Is(err, variables.ErrLocked), is[*release.OpenError](err), is[*release.NotOpenError](err), is[*release.NoApprovalError](err), is[*record.MovedError](err):
		return ClassBusy
	case is[*release.StalePlanError](err):
		return ClassStale
	case errors.Is(err, context.Canceled):
		return ClassCancelled
	}
	if _, ok := nomad.AsClusterError(err, api.DefaultConfig().Address); ok {
		return ClassCluster
	}
	return ClassOther
}

func is[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func invalid(err error) bool {
	return is[*InvalidError](err) || is[hcl.Diagnostics](err) || is[*rollout.NeedsReplace](err) || is[*rollout.NoNamespaceError](err) ||
		is[*release.TooLargeError](err) || is[*release.RecordTooLargeError](err) || is[*release.ForeignError](err) || is[*release.RelocatedError](err) ||
		is[*release.PruneError](err) || is[*release.UpgradeError](err) || is[*release.ExclusiveError](err) || is[*release.SharedNameError](err) || is[*release.SameJobError](err) ||
		is[*record.OwnerError](err) || is[*record.RefusedError](err) || is[*SparedError](err)
}

// ErrDeclined is returned when a person says no. Nothing was done.
var ErrDeclined = errors.New("declined: nothing was done")

// InvalidError reports a mistake in options, in a stack or in its values. Nothing
// was done.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

func invalidf(format string, args ...any) error {
	return &InvalidError{fmt.Errorf(format, args...)}
}

// invalidAt is a mistake at a place in the files of a stack.
func invalidAt(at hcl.Range, format string, args ...any) error {
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: fmt.Sprintf(format, args...), Subject: &at}}
}

// OutcomeError reports that a release was made, or would have been, and that its
// outcome is not a good one. The result and the end of the events have the details.
type OutcomeError struct{ Outcome rollout.Outcome }

func (e *OutcomeError) Error() string { return "outcome: " + string(e.Outcome) }
