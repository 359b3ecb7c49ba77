package release

import (
	"context"
	"sync"

	"github.com/drover-nomad/drover/rollout"
)

// redactor hides the values of the stack's secrets that are known so far.
type redactor struct {
	mu   sync.Mutex
	hide func(string) string // nil if no value is known
}

func (r *redactor) set(hide func(string) string) {
	if hide == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hide = hide
}

func (r *redactor) redact(text string) string {
	r.mu.Lock()
	hide := r.hide
	r.mu.Unlock()
	if hide == nil {
		return text
	}
	return hide(text)
}

// HideSecrets hides the present values of the stack's secrets in every plan, event and
// result from now on. Plan and Deploy do this by themselves for a stack whose files
// declare secrets.
func (d *Deployer) HideSecrets(ctx context.Context) error {
	if d.Secrets == nil {
		return nil
	}
	hide, err := d.Secrets.Redactor(ctx)
	if err != nil {
		return err
	}
	d.hidden.set(hide)
	return nil
}

// options returns the options of a rollout of this release.
func (d *Deployer) options() rollout.Options {
	o := d.Rollout
	if o.Redact == nil {
		o.Redact = d.hidden.redact
	}
	return o
}
