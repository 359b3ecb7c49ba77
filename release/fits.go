package release

import (
	"errors"
	"fmt"
	"slices"

	"github.com/drover-nomad/drover/record"
)

// RecordTooLargeError reports that a release cannot be recorded: its head, or
// the values of its variables, are larger than a Nomad Variable.
type RecordTooLargeError struct{ Err error }

func (e *RecordTooLargeError) Error() string {
	return "the release cannot be recorded: " + e.Err.Error()
}
func (e *RecordTooLargeError) Unwrap() error { return e.Err }

// fits returns a *RecordTooLargeError if the record of the release would pass
// the limits of Nomad Variables. It makes no request.
func (d *Deployer) fits(p *Plan) error {
	lines := slices.Clone(p.lines)
	for _, part := range p.Parts {
		for _, j := range part.Jobs {
			lines = append(lines, line(j))
		}
	}
	head := d.head(p, record.Running)
	_, err := describe(head, p, lines)
	if err == nil {
		err = d.Releases.Fits(head)
	}
	var large *record.TooLargeError
	var headLarge *record.HeadTooLargeError
	if errors.As(err, &large) || errors.As(err, &headLarge) {
		return &RecordTooLargeError{err}
	}
	if err != nil {
		return fmt.Errorf("planning the record of the release: %w", err)
	}
	return nil
}
