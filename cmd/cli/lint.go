package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/render/lint"
	"github.com/drover-nomad/drover/schedule"
	"github.com/drover-nomad/drover/stack"
)

func newLint(streams *IO) *cobra.Command {
	var (
		flags   stackFlags
		format  string
		disable []string
	)
	cmd := &cobra.Command{
		Use:   "lint STACK",
		Short: "Find mistakes in a stack without asking Nomad",
		Long: `Find mistakes in a stack, or a single job file, without asking Nomad.

The rules are described in docs/reference/lint.md. The exit code is 0 when there
are no errors (warnings are allowed) and 2 when there are.`,
		Example: `  drover lint ./mycloud -e prod
  drover lint web.nomad.hcl`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usagef("-o is text or json, not %q", format)
			}
			for _, name := range disable {
				if !slices.Contains(lint.Names(), name) {
					hint := "the rules are " + strings.Join(lint.Names(), ", ")
					if near := stack.Nearest(name, lint.Names()); near != "" {
						hint = fmt.Sprintf("did you mean %s?", near)
					}
					return usagef("--disable: there is no rule %q; %s", name, hint)
				}
			}
			s, jobs, err := flags.load(cmd.Context(), args[0])
			findings, about := lint.FromError(err, disable)
			switch {
			case err == nil:
				if findings, err = lint.Stack(cmd.Context(), jobs, disable); err != nil {
					return err
				}
				unable, _ := lint.FromError(schedule.Check(s, jobs), disable)
				findings = append(findings, unable...)
				findings = append(findings, flags.sharedBetweenEnvironments(cmd.Context(), args[0], s, jobs, disable)...)
			case !about:
				return err
			}
			for _, f := range findings {
				view.AnnotateFinding(streams, f)
			}
			failed := slices.ContainsFunc(findings, func(f lint.Finding) bool { return f.Severity == lint.Error })
			if format == "json" {
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				enc.SetEscapeHTML(false)
				if err := enc.Encode(findings); err != nil {
					return err
				}
			} else {
				for _, f := range findings {
					fmt.Fprintln(streams.Out, findingLine(f))
				}
			}
			if failed {
				return errSilent{exitUsage}
			}
			return nil
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().StringArrayVar(&disable, "disable", nil, "leave out this rule (repeatable)")
	return cmd
}

// sharedBetweenEnvironments compares the environment with the others of the
// stack. One that cannot be rendered without more values is left out.
func (f *stackFlags) sharedBetweenEnvironments(ctx context.Context, arg string, s *stack.Stack, jobs []render.Job, disable []string) []lint.Finding {
	if !slices.ContainsFunc(s.Targets, func(t *stack.Target) bool { return t.Cluster != nil }) {
		return nil
	}
	files, err := fs.Glob(s.FS, "environments/*.hcl")
	if err != nil {
		return nil
	}
	var others []lint.Environment
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".hcl")
		if name == s.Environment {
			continue
		}
		other := stackFlags{environment: name}
		if there, rendered, err := other.load(ctx, arg); err == nil {
			others = append(others, lint.Environment{Name: name, Targets: there.Targets, Jobs: rendered})
		}
	}
	return lint.Environments(lint.Environment{Name: s.Environment, Targets: s.Targets, Jobs: jobs}, others, disable)
}

// findingLine is "file:line:column: severity: message (rule); mend".
func findingLine(f lint.Finding) string {
	var b strings.Builder
	if f.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", f.File, f.Line, f.Column)
	}
	fmt.Fprintf(&b, "%s: %s (%s", f.Severity, f.Message, f.Rule)
	switch n := len(f.Services); {
	case n > 3:
		fmt.Fprintf(&b, ", %d services", n)
	case n > 0:
		b.WriteString(", " + strings.Join(f.Services, " "))
	}
	b.WriteString(")")
	if f.Mend != "" {
		b.WriteString("; " + f.Mend)
	}
	return b.String()
}
