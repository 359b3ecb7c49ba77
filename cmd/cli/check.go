package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
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
			s, err := flags.stack(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			checks := s.Checks
			if len(args) == 2 {
				if checks, err = namedCheck(s, args[1]); err != nil {
					return err
				}
			}
			return runChecks(cmd.Context(), streams, s.Name, checks, retryFor, format == "json")
		},
	}
	flags.registerWhole(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&retryFor, "retry-for", 0, "how long a failing check is tried again")
	fl.StringVarP(&format, "output", "o", "text", "text, or json: one result per line")
	return cmd
}

func namedCheck(s *stack.Stack, name string) ([]*stack.Check, error) {
	var names []string
	for _, c := range s.Checks {
		if c.Name == name {
			return []*stack.Check{c}, nil
		}
		names = append(names, c.Name)
	}
	return nil, usagef("stack %s has no check %q; it has %s", s.Name, name, strings.Join(names, ", "))
}

func runChecks(ctx context.Context, streams *IO, name string, checks []*stack.Check, retryFor time.Duration, asJSON bool) error {
	results := make([]rollout.CheckResult, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		// What the request carries must not come back in the answer that is shown.
		values := []record.Value{record.NewValue(c.Password)}
		for k, v := range c.Headers {
			if sensitiveHeader(k) {
				values = append(values, record.NewValue(v))
			}
		}
		hide := record.Redactor(values...)
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

func sensitiveHeader(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"auth", "cookie", "token", "key", "secret", "password"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
