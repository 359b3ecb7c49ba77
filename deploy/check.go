package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// Check runs the checks of a stack. It changes nothing, so that Home.Dial may be
// nomad.Reach.
//
// If Source.Path exists, the checks are those of the source; the values of the
// newest release are used if the source cannot be read without them. Otherwise
// the checks are those of the newest release. A release records no credentials:
// a password that is a secret of the stack is read there, and a check with any
// other credential fails.
type Check struct {
	Home     Home
	Source   Source
	Name     string        // the check to run; "" for all
	RetryFor time.Duration // how long a failing check is repeated; 0 for one attempt
}

// CheckResult has the result of each check, in the order of the stack.
type CheckResult struct {
	Stack  string
	Checks []rollout.CheckResult
}

// Failed returns the number of checks that failed.
func (r CheckResult) Failed() int {
	n := 0
	for _, c := range r.Checks {
		if !c.OK {
			n++
		}
	}
	return n
}

// Run runs all checks at the same time. A check that fails is not an error.
func (v Check) Run(ctx context.Context) (CheckResult, error) {
	r, err := newReader(ctx, &v.Home, &v.Source)
	if err != nil {
		return CheckResult{}, err
	}
	out := CheckResult{Stack: r.releases.Stack()}
	checks, err := v.checks(ctx, r)
	if err != nil {
		return out, err
	}
	if v.Name != "" {
		if checks, err = checkNamed(out.Stack, checks, v.Name); err != nil {
			return out, err
		}
	}
	secrets := v.Home.secretStore(r.home, r.releases.Stack(), r.releases.Environment())
	if checks, err = withPasswords(ctx, secrets, checks); err != nil {
		return out, err
	}
	out.Checks = runChecks(ctx, checks, v.RetryFor)
	return out, ctx.Err()
}

// checks returns the checks of the source or of the newest release.
func (v Check) checks(ctx context.Context, r *reader) ([]*stack.Check, error) {
	_, err := os.Stat(v.Source.Path)
	local := err == nil // else a stack that ships, or a name
	head, err := r.newest(ctx)
	if err != nil && !local {
		return nil, err
	}
	if head == nil && !v.Source.Exists() {
		return nil, NoRelease(ctx, r.home.Nomad, r.releases)
	}
	var sourceErr error
	if local || head == nil {
		var s *stack.Stack
		if s, sourceErr = v.load(ctx, r.releases, head); sourceErr == nil {
			return s.Checks, nil
		}
		if head == nil {
			return nil, sourceErr
		}
	}
	checks, recorded, err := release.Checks(ctx, r.releases, head)
	isWithheld := func(c *stack.Check) bool { return c.Withheld }
	switch {
	case err != nil:
		return nil, err
	case recorded && (sourceErr != nil || !slices.ContainsFunc(checks, isWithheld)):
		return checks, nil
	case sourceErr != nil:
		return nil, sourceErr
	case !v.Source.Exists() && !recorded:
		return nil, invalidf("release %d of stack %s has no checks in its record; name the directory of the stack", head.Number, r.releases.Stack())
	case !v.Source.Exists():
		return checks, nil
	}
	s, err := v.load(ctx, r.releases, head)
	switch {
	case !recorded && err != nil:
		return nil, err
	case !recorded:
		return s.Checks, nil
	case err != nil:
		return checks, nil
	}
	return restoreWithheld(checks, s.Checks), nil
}

// restoreWithheld returns the recorded checks, with those of the source in place
// of those whose credentials were withheld.
func restoreWithheld(recorded, source []*stack.Check) []*stack.Check {
	out := slices.Clone(recorded)
	for i, c := range out {
		j := slices.IndexFunc(source, func(other *stack.Check) bool { return other.Name == c.Name })
		if c.Withheld && j >= 0 {
			out[i] = source[j]
		}
	}
	return out
}

// load reads the source, with the values of the release head if it cannot be
// read without them. head may be nil.
func (v Check) load(ctx context.Context, r release.Reader, head *record.Release) (*stack.Stack, error) {
	s, err := v.Source.Load(ctx)
	if err == nil || head == nil || head.Values == "" {
		return s, err
	}
	b, berr := r.Blob(ctx, head.Values)
	if berr != nil {
		return nil, err
	}
	source := v.Source
	source.Vars = slices.Concat(varsOf(b.Values), source.Vars)
	if s, verr := source.Load(ctx); verr == nil {
		return s, nil
	}
	return nil, err
}

// varsOf returns recorded values as Source.Vars takes them. It leaves out those
// that are null, and those of services (SERVICE.NAME).
func varsOf(recorded json.RawMessage) []string {
	var values map[string]json.RawMessage
	if json.Unmarshal(recorded, &values) != nil {
		return nil
	}
	var out []string
	for name, value := range values {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		if !strings.Contains(name, ".") && string(value) != "null" {
			out = append(out, name+"="+text)
		}
	}
	slices.Sort(out)
	return out
}

// withPasswords returns the checks with the passwords that are secrets of the
// stack.
func withPasswords(ctx context.Context, secrets release.SecretStore, checks []*stack.Check) ([]*stack.Check, error) {
	out := slices.Clone(checks)
	for i, c := range out {
		if c.Secret == "" {
			continue
		}
		value, err := secrets.Item(ctx, c.Secret)
		if err != nil {
			return nil, fmt.Errorf("cannot read the password of check %s: %w", c.Name, err)
		}
		with := *c
		with.Password = value.Reveal()
		out[i] = &with
	}
	return out, nil
}

func checkNamed(stackName string, checks []*stack.Check, name string) ([]*stack.Check, error) {
	var names []string
	for _, c := range checks {
		if c.Name == name {
			return []*stack.Check{c}, nil
		}
		names = append(names, c.Name)
	}
	return nil, invalidf("stack %s has no check %q; it has %s", stackName, name, strings.Join(names, ", "))
}

// withheldProblem is why a check whose credentials were not recorded fails.
const withheldProblem = "not run: its credentials are not in the record; name the directory of the stack, or give the password as a secret: basic_auth { username = …, secret = … }"

func runChecks(ctx context.Context, checks []*stack.Check, retryFor time.Duration) []rollout.CheckResult {
	out := make([]rollout.CheckResult, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		if c.Withheld {
			out[i] = rollout.CheckResult{Name: c.Name, Problem: withheldProblem}
			continue
		}
		hide := credentialsOf(c)
		wg.Go(func() { out[i] = rollout.RunCheck(ctx, c, retryFor, hide) })
	}
	wg.Wait()
	return out
}

// credentialsOf returns a function that hides the credentials of a check in an
// answer, which may repeat them.
func credentialsOf(c *stack.Check) func(string) string {
	values := []secrets.Value{secrets.NewValue(c.Password)}
	for name, value := range c.Headers {
		if stack.SensitiveHeader(name) {
			values = append(values, secrets.NewValue(value))
		}
	}
	return secrets.Redactor(values...)
}
