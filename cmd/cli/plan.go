package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/cmd/cli/view"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/secrets"
)

// With flagDetailed, codeChanges is no failure and every failure is 1, as in
// other programs that plan.
const (
	flagDetailed = "detailed-exitcode"
	codeChanges  = 2
)

func newPlan(streams *IO, f *factory) *cobra.Command {
	var (
		flags    stackFlags
		format   string
		out      string
		detailed bool
		forget   []string
	)
	cmd := &cobra.Command{
		Use:   "plan STACK",
		Short: "Show what a deploy would change",
		Long: `Show what a deploy would change. It changes nothing.

The plan lists the services in the order of a deploy, after the jobs that are
stopped because they are no longer in the stack. For each service it shows

  - the change: create, in place, replace (with the number of allocations, and how
    many of them first), recreate, stop, or none
  - every attribute that differs; secrets are hidden
  - allocations that no node can take, and allocations that would be preempted

The count of a group that was scaled is kept, unless the stack has changed the
count since the last release.

With -out the plan is saved in a file. 'drover deploy FILE' does exactly what the
plan shows, or refuses and names the jobs that changed since.

It exits with 0. With --detailed-exitcode it exits with 0 if there is nothing to
do, with 2 if there are changes, and with 1 on any error.`,
		Example: `  drover plan ocis -e prod
  drover plan ocis -e prod -out ocis.plan && drover deploy ocis.plan
  drover plan . --detailed-exitcode -o json`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "text", "json"); err != nil {
				return err
			}
			made, err := (&deploy.Plan{Home: f.home(cmd), Source: flags.source(args[0]), Forget: forget}).Run(cmd.Context())
			if err != nil {
				return releaseError(err)
			}
			if out != "" {
				text, err := made.Save(Version)
				if err != nil {
					return err
				}
				if err := replacePrivate(out, text); err != nil {
					return err
				}
			}
			p := &planned{made}
			if err := p.print(streams, format == "json", out); err != nil {
				return err
			}
			if detailed && p.Changed() {
				return errSilent{codeChanges}
			}
			return nil
		},
	}
	flags.register(cmd)
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "text", "text or json")
	fl.StringVar(&out, "out", "", "freeze the plan in this `FILE`, which only its owner may read")
	forgetFlag(cmd, &forget)
	fl.BoolVar(&detailed, flagDetailed, false, "end with 0: nothing to do, 2: changes, 1: error")
	return cmd
}

// planned shows a plan.
type planned struct{ *deploy.PlanResult }

// ownedJob is a job that belongs to another stack or environment, for JSON; or,
// without them, to none.
type ownedJob struct {
	JobID       string `json:"job_id"`
	Target      string `json:"target,omitempty"`
	Stack       string `json:"stack"`
	Environment string `json:"environment"`
	Release     int    `json:"release"`
}

func owned(jobs []release.ForeignJob) []ownedJob {
	var out []ownedJob
	for _, j := range jobs {
		if o := j.Owner; o != nil {
			out = append(out, ownedJob{j.JobID, j.Target, o.Stack, o.Environment, o.Release})
		}
	}
	return out
}

func spared(jobs []release.ForeignJob) []ownedJob {
	out := owned(jobs)
	for _, j := range jobs {
		if j.Owner == nil {
			out = append(out, ownedJob{JobID: j.JobID, Target: j.Target})
		}
	}
	return out
}

// planSummary counts services by what happens to them.
type planSummary struct {
	Create    int `json:"create"`
	InPlace   int `json:"in_place"`
	Replace   int `json:"replace"`
	Recreate  int `json:"recreate"`
	Stop      int `json:"stop"`
	Unchanged int `json:"unchanged"`
	// Restarted is how many allocations are stopped and started in all.
	Restarted int `json:"allocations_replaced"`
	Unplaced  int `json:"unplaced_groups"`
}

func summarize(changes []release.Change) planSummary {
	var s planSummary
	for _, c := range changes {
		*map[rollout.Action]*int{
			rollout.ActionCreate: &s.Create, rollout.ActionInPlace: &s.InPlace, rollout.ActionReplace: &s.Replace,
			rollout.ActionRecreate: &s.Recreate, rollout.ActionStop: &s.Stop, rollout.ActionNone: &s.Unchanged,
		}[c.Action]++
		for _, g := range c.Groups {
			s.Restarted += g.Replace
		}
		s.Unplaced += len(c.Placement)
	}
	return s
}

func (s planSummary) String() string {
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(s.Create, "create")
	add(s.InPlace, "in-place")
	if s.Replace > 0 {
		parts = append(parts, fmt.Sprintf("%d replace (%s)", s.Replace, count(s.Restarted, "allocation")))
	}
	add(s.Recreate, "recreate")
	add(s.Stop, "stop")
	add(s.Unchanged, "unchanged")
	return cmp.Or(strings.Join(parts, ", "), "no services")
}

// count is "1 allocation", "2 allocations".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *planned) print(streams *IO, asJSON bool, file string) error {
	sum := summarize(p.Changes)
	var foreign []string
	for _, j := range p.Plan.Foreign() {
		foreign = append(foreign, j.JobID)
	}
	if asJSON {
		enc := json.NewEncoder(streams.Out)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{
			"layout": 1, "stack": p.Stack.Name, "environment": p.Stack.Environment, "address": p.Address,
			"inputs": p.Inputs, "changed": p.Changed(), "process_values": p.Stack.ProcessValues, "services": p.Changes, "summary": sum, "foreign": foreign, "missing_volumes": p.Volumes, "owners": owned(p.Plan.Foreign()),
			"spared": spared(p.Plan.Spared()), "shared_names": p.Plan.SharedNames(), "forgotten": p.Plan.Forgotten(),
			"secrets": p.Plan.Secrets(), "secrets_hidden": p.SecretsHidden,
		})
	}
	var b bytes.Buffer
	v := planView{w: &b, color: streams.Color}
	v.changes(p.Changes)
	if lines := secretLines(p.Plan.Secrets()); len(lines) > 0 {
		v.line(0, "secrets")
		for _, text := range lines {
			v.line(1, "%s", text)
		}
	}
	if p.Changed() {
		fmt.Fprintln(&b)
	}
	fmt.Fprintf(&b, "%s: %s\n", p.Stack.Name, sum)
	if _, err := streams.Out.Write(b.Bytes()); err != nil {
		return err
	}
	if p.SecretsHidden {
		fmt.Fprintln(streams.Err, "The token may not read secrets: what would change in them is not shown.")
	}
	view.PrintProcessValues(streams.Err, p.Stack.ProcessValues)
	for _, m := range p.Volumes {
		fmt.Fprintf(streams.Err, "Missing: %s\n", m)
	}
	for _, name := range p.Plan.Forgotten() {
		fmt.Fprintf(streams.Err, "%s keeps running and is forgotten.\n", name)
	}
	for _, j := range p.Plan.Spared() {
		fmt.Fprintf(streams.Err, "Job %s is not in the stack any more and keeps running: %s.\n", j.JobID, j.Reason())
	}
	for _, s := range p.Plan.SharedNames() {
		text := s.String()
		fmt.Fprintf(streams.Err, "%s%s: deploy refuses.\n", strings.ToUpper(text[:1]), text[1:])
	}
	for _, j := range p.Plan.Foreign() {
		if j.Owner != nil {
			fmt.Fprintf(streams.Err, "Job %s belongs to %s: deploy refuses.\n", j.JobID, j.Owner)
			continue
		}
		fmt.Fprintf(streams.Err, "Job %s runs and no release of this stack made it: take it over with 'drover adopt', or deploy refuses.\n", j.JobID)
	}
	if last := p.Plan.Last(); last != nil && last.State.Open() {
		fmt.Fprintf(streams.Err, "Release %d is %s: deploy refuses until it is at its end.\n", last.Number, release.Describe(last))
	}
	if file != "" {
		fmt.Fprintf(streams.Err, "Next: drover deploy %s\n", file)
	}
	return nil
}

// secretLines describes what changes in secrets, one line for each secret or
// job.
func secretLines(c *record.SecretChanges) []string {
	if c == nil {
		return nil
	}
	var out []string
	for _, s := range []struct {
		what  string
		names []string
	}{{"make", c.Generated}, {"renew certificate", c.Renewed}, {"needs a value from you (drover secrets set):", c.Missing}} {
		if len(s.names) > 0 {
			out = append(out, s.what+" "+strings.Join(s.names, ", "))
		}
	}
	for _, j := range c.Jobs {
		out = append(out, view.FormatJobSecrets(j))
	}
	return out
}

// planView writes changes for a person.
type planView struct {
	w     io.Writer
	color bool
}

var planMarks = map[rollout.Action]string{
	rollout.ActionNone: " ", rollout.ActionCreate: "+", rollout.ActionInPlace: "~",
	rollout.ActionReplace: "±", rollout.ActionRecreate: "!", rollout.ActionStop: "-",
}

// planColours are those of the marks, by ANSI number.
var planColours = map[string]string{"+": "32", "~": "33", "±": "33", "!": "31", "-": "31"}

func (v planView) mark(mark string) string {
	if c := planColours[mark]; v.color && c != "" {
		return "\x1b[" + c + "m" + mark + "\x1b[0m"
	}
	return mark
}

func (v planView) line(depth int, format string, args ...any) {
	fmt.Fprintf(v.w, strings.Repeat("  ", depth)+format+"\n", args...)
}

// changes writes them all, under the name of their wave where there are some.
func (v planView) changes(changes []release.Change) {
	waves := slices.ContainsFunc(changes, func(c release.Change) bool { return c.Wave != "" })
	section := ""
	for i, c := range changes {
		title := ""
		switch {
		case waves && c.Action == rollout.ActionStop:
			title = "stops at the end"
		case waves:
			title = "wave " + c.Wave
		}
		if title != section {
			if i > 0 {
				fmt.Fprintln(v.w)
			}
			v.line(0, "%s", title)
			section = title
		}
		v.change(c.Change)
	}
}

func (v planView) change(c rollout.Change) {
	name := render.Job{Service: c.Service, Target: c.Target}.Name()
	var what []string
	if c.Reason != "" {
		what = append(what, c.Reason)
	}
	for _, g := range c.Groups {
		text := g.String()
		if len(c.Groups) > 1 {
			text = g.Group + ": " + text
		}
		what = append(what, text)
	}
	if c.Action == rollout.ActionNone {
		unchanged := "unchanged"
		if c.Completed != nil {
			unchanged += ": " + c.Completed.String()
		}
		v.line(0, "  %s  %s", name, unchanged)
	} else {
		line := fmt.Sprintf("%s %s  %s", v.mark(planMarks[c.Action]), name, c.Action)
		if c.JobID != c.Service {
			line += " (job " + c.JobID + ")"
		}
		if len(what) > 0 {
			line += "  " + strings.Join(what, "; ")
		}
		v.line(0, "%s", line)
	}
	if c.RenamedTo != "" {
		v.line(2, "service %s becomes job %s: did a variable rename it?", c.Service, c.RenamedTo)
	}
	for _, f := range c.Diff {
		v.field(f)
	}
	if !c.NextRun.IsZero() && c.Action != rollout.ActionNone {
		v.line(2, "next run %s", c.NextRun.Format(time.RFC3339))
	}
	for _, k := range c.Kept {
		v.line(2, "%s", k)
	}
	for _, r := range c.Replaced {
		v.line(2, "%s", r)
	}
	for _, p := range c.Placement {
		v.line(2, "no place: %s", p)
	}
	for _, p := range c.Preempted {
		v.line(2, "preempts %s of job %s", count(p.Count, "allocation"), p.JobID)
	}
	if c.Action != rollout.ActionNone {
		for _, image := range c.Images {
			v.line(2, "warning: the image %s has no fixed tag and may change without the job", image)
		}
		for _, w := range c.Warnings {
			v.line(2, "warning: %s", strings.TrimSpace(w))
		}
	}
}

func (v planView) field(f rollout.FieldChange) {
	mark := map[string]string{rollout.FieldAdded: "+", rollout.FieldDeleted: "-"}[f.Kind]
	mark = v.mark(cmp.Or(mark, "~"))
	switch {
	case f.Secret:
		v.line(2, "%s %s: %s", mark, f.Path, secrets.Redacted)
	case f.Old == "" && f.New == "" && f.Kind != rollout.FieldEdited:
		v.line(2, "%s %s", mark, f.Path)
	case strings.Contains(f.Old+f.New, "\n"):
		v.line(2, "%s %s:", mark, f.Path)
		text := string(diff.Diff("old", []byte(ended(f.Old)), "new", []byte(ended(f.New))))
		lines := strings.SplitAfter(text, "\n")
		for _, l := range lines[min(3, len(lines)):] { // after the names of the files
			if l == "" {
				continue
			}
			l = strings.TrimSuffix(l, "\n")
			v.line(4, "%s%s", v.mark(l[:1]), l[1:])
		}
	case f.Kind == rollout.FieldAdded:
		v.line(2, "%s %s: %q", mark, f.Path, f.New)
	case f.Kind == rollout.FieldDeleted:
		v.line(2, "%s %s: %q", mark, f.Path, f.Old)
	case len(f.Old)+len(f.New) > 80:
		v.line(2, "%s %s: %q", mark, f.Path, f.Old)
		v.line(4, "→ %q", f.New)
	default:
		v.line(2, "%s %s: %q → %q", mark, f.Path, f.Old, f.New)
	}
}

func ended(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}

// replacePrivate writes a file, or a new one in its place, at once and for its
// owner alone.
func replacePrivate(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".drover-") // 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
