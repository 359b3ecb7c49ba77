package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

func newCheck(streams *IO) *cobra.Command {
	var (
		flags    stackFlags
		retryFor time.Duration
		format   string
	)
	cmd := &cobra.Command{
		Use:   "check STACK [NAME]",
		Short: "Run the checks of a stack: HTTP requests and what they must answer",
		Long: `Run the checks of a stack: HTTP requests and what they must answer.

STACK is a directory, whose checks are read; or the name of a stack whose source
need not be here: its checks are then those of its newest release, as the record has
them. A directory is read with the values of the newest release where none are
given. The record has no credentials: a check whose password is a secret of the stack
(basic_auth with secret) reads it there, and any other one with a credential needs
the source.

The exit code is 0 when every check passes, otherwise 9.`,
		Example: `  drover check ocis -e prod
  drover check ocis webdav -e prod --retry-for 1m`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s: give STACK and perhaps the NAME of a check", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			r, err := flags.running(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			checks, err := r.checks(cmd.Context())
			if err != nil {
				return err
			}
			if len(args) == 2 {
				if checks, err = namedCheck(r.releases.Stack(), checks, args[1]); err != nil {
					return err
				}
			}
			if err := r.passwords(cmd.Context(), checks); err != nil {
				return err
			}
			return runChecks(cmd.Context(), streams, r.releases.Stack(), checks, retryFor, format == "json")
		},
	}
	flags.registerWhole(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&retryFor, "retry-for", 0, "how long a failing check is tried again")
	fl.StringVarP(&format, "output", "o", "text", "text, or json: one result per line")
	return cmd
}

// checks returns the checks of the stack: those of its source where the command
// names a directory, else those of its newest release. What the record withholds is
// taken from the source where it is here; otherwise it stays withheld.
func (r *running) checks(ctx context.Context) ([]*stack.Check, error) {
	_, err := os.Stat(r.arg)
	local := err == nil
	head, err := r.newest(ctx)
	if err != nil && !local {
		return nil, err
	}
	if head == nil && !r.hasSource() {
		return nil, noReleases(ctx, r.home, r.releases)
	}
	var serr error // of the source
	if local || head == nil {
		var s *stack.Stack
		if s, serr = r.sourceWithValues(ctx, head); serr == nil {
			return s.Checks, nil
		}
		if head == nil {
			return nil, serr
		}
	}
	checks, recorded, err := release.Checks(ctx, r.releases, head)
	if err != nil {
		return nil, err
	}
	withheld := func(c *stack.Check) bool { return c.Withheld }
	switch {
	case recorded && (serr != nil || !slices.ContainsFunc(checks, withheld)):
		return checks, nil
	case serr != nil:
		return nil, serr
	case !r.hasSource() && !recorded:
		return nil, usagef("release %d of stack %s has no checks in its record; name the directory of the stack", head.Number, r.releases.Stack())
	case !r.hasSource():
		return checks, nil
	}
	s, serr := r.sourceWithValues(ctx, head)
	switch {
	case !recorded:
		if serr != nil {
			return nil, serr
		}
		return s.Checks, nil
	case serr != nil:
		return checks, nil
	}
	for i, c := range checks {
		if j := slices.IndexFunc(s.Checks, func(other *stack.Check) bool { return other.Name == c.Name }); c.Withheld && j >= 0 {
			checks[i] = s.Checks[j]
		}
	}
	return checks, nil
}

// sourceWithValues reads the source, with the values of the release head where it
// cannot be read without.
func (r *running) sourceWithValues(ctx context.Context, head *record.Release) (*stack.Stack, error) {
	s, err := r.flags.stack(ctx, r.arg)
	if values := r.recordedValues(ctx, head); err != nil && len(values) > 0 {
		if again, aerr := r.flags.stackWith(ctx, r.arg, values); aerr == nil {
			return again, nil
		}
	}
	return s, err
}

// recordedValues returns the values of variables with which a release was made, as
// -var takes them; nil when there are none.
func (r *running) recordedValues(ctx context.Context, head *record.Release) []string {
	if head == nil || head.Values == "" {
		return nil
	}
	b, err := r.releases.Blob(ctx, head.Values)
	if err != nil {
		return nil // the source may do without
	}
	var values map[string]json.RawMessage
	if json.Unmarshal(b.Values, &values) != nil {
		return nil
	}
	var out []string
	for name, value := range values {
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value)
		}
		if !strings.Contains(name, ".") && string(value) != "null" { // SERVICE.NAME is no variable of the stack
			out = append(out, name+"="+text)
		}
	}
	return out
}

// passwords reads the passwords that are secrets of the stack.
func (r *running) passwords(ctx context.Context, checks []*stack.Check) error {
	for i, c := range checks {
		if c.Secret == "" {
			continue
		}
		value, err := record.OpenSecrets(r.home.Nomad, r.releases.Stack(), r.releases.Environment(), nil).Item(ctx, c.Secret)
		if err != nil {
			return fmt.Errorf("cannot read the password of check %s: %w", c.Name, err)
		}
		with := *c
		with.Password = value.Reveal()
		checks[i] = &with
	}
	return nil
}

func namedCheck(stackName string, checks []*stack.Check, name string) ([]*stack.Check, error) {
	var names []string
	for _, c := range checks {
		if c.Name == name {
			return []*stack.Check{c}, nil
		}
		names = append(names, c.Name)
	}
	return nil, usagef("stack %s has no check %q; it has %s", stackName, name, strings.Join(names, ", "))
}

func runChecks(ctx context.Context, streams *IO, name string, checks []*stack.Check, retryFor time.Duration, asJSON bool) error {
	results := make([]rollout.CheckResult, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		// What the request carries must not come back in the answer that is shown.
		values := []record.Value{record.NewValue(c.Password)}
		for k, v := range c.Headers {
			if stack.SensitiveHeader(k) {
				values = append(values, record.NewValue(v))
			}
		}
		hide := record.Redactor(values...)
		if c.Withheld {
			results[i] = rollout.CheckResult{Name: c.Name, Problem: "not run: its credentials are not in the record; name the directory of the stack, or give the password as a secret: basic_auth { username = …, secret = … }"}
			continue
		}
		wg.Go(func() { results[i] = rollout.RunCheck(ctx, c, retryFor, hide) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	failed := 0
	for _, r := range results {
		if !r.OK {
			failed++
		}
		if asJSON {
			_ = json.NewEncoder(streams.Out).Encode(r)
			continue
		}
		if r.OK {
			fmt.Fprintf(streams.Out, "ok    %s  %d in %s\n", r.Name, r.Status, round(r.Elapsed))
			continue
		}
		fmt.Fprintf(streams.Out, "FAIL  %s  %s: %s (%d attempts in %s)\n", r.Name, r.URL, r.Problem, r.Attempts, round(r.Elapsed))
		if r.Body != "" {
			fmt.Fprintf(streams.Out, "      %s\n", indent(r.Body, "      "))
		}
	}
	if !asJSON {
		fmt.Fprintf(streams.Err, "%s: %d of %d checks ok\n", name, len(checks)-failed, len(checks))
	}
	if failed > 0 {
		return errSilent{exitCheck}
	}
	return nil
}
