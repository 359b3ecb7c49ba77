package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
)

func newCheck(streams *IO, f *factory) *cobra.Command {
	var (
		flags    stackFlags
		retryFor time.Duration
		format   string
	)
	cmd := &cobra.Command{
		Use:   "check STACK [NAME]",
		Short: "Run the HTTP checks of a stack",
		Long: `Run the checks of a stack: send HTTP requests and compare the answers with what
the stack expects.

STACK is a directory, whose checks are read; or the name of a stack whose source
need not be here: its checks are then those of its newest release. A directory is
read with the values of the newest release if none are given. The record has no
credentials: a check whose password is a secret of the stack (basic_auth with secret)
reads it there, and any other check with a credential needs the source.

It needs a token that may read the record of the stack, and its secrets if a check
uses one. It changes nothing. It exits with 0 if every check passes, otherwise with 9.`,
		Example: `  drover check ocis -e prod
  drover check ocis webdav -e prod --retry-for 1m`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("%s: give STACK [NAME]", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			check := deploy.Check{Home: f.readingHome(cmd), Source: flags.source(args[0]), RetryFor: retryFor}
			if len(args) == 2 {
				check.Name = args[1]
			}
			res, err := check.Run(cmd.Context())
			if err != nil {
				return err
			}
			printChecks(streams, res, format == "json")
			if res.Failed() > 0 {
				return errSilent{exitCheck}
			}
			return nil
		},
	}
	flags.registerWhole(cmd)
	fl := cmd.Flags()
	fl.DurationVar(&retryFor, "retry-for", 0, "how long to retry a failing check")
	fl.StringVarP(&format, "output", "o", "text", "text, or json: one result per line")
	return cmd
}

func printChecks(streams *IO, res deploy.CheckResult, asJSON bool) {
	for _, r := range res.Checks {
		if asJSON {
			_ = json.NewEncoder(streams.Out).Encode(r)
			continue
		}
		if r.OK {
			fmt.Fprintf(streams.Out, "ok    %s  %d in %s\n", r.Name, r.Status, view.Round(r.Elapsed))
			continue
		}
		fmt.Fprintf(streams.Out, "FAIL  %s  %s: %s (%d attempts in %s)\n", r.Name, r.URL, r.Problem, r.Attempts, view.Round(r.Elapsed))
		if r.Body != "" {
			fmt.Fprintf(streams.Out, "      %s\n", strings.ReplaceAll(strings.TrimSpace(r.Body), "\n", "\n      "))
		}
	}
	if !asJSON {
		fmt.Fprintf(streams.Err, "%s: %d of %d checks ok\n", res.Stack, len(res.Checks)-res.Failed(), len(res.Checks))
	}
}
