package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// SavedLayout is the layout of saved plans that this drover writes.
const SavedLayout = 1

// Saved is a plan in a file: the rendered jobs, and all that a deploy has to
// find unchanged to do exactly what was shown.
type Saved struct {
	Layout  int             `json:"drover_plan"` // first, so that IsSaved recognises the file
	Sum     string          `json:"sum"`         // SHA-256 of the rest, hexadecimal
	Created time.Time       `json:"created"`
	Drover  string          `json:"drover"` // version that wrote it
	Address string          `json:"address"`
	Inputs  string          `json:"inputs"`            // Digest of the rendered jobs
	Partial bool            `json:"partial,omitempty"` // not all of the stack's services
	Stack   json.RawMessage `json:"stack"`             // stack.Freeze
	Steps   []SavedStep     `json:"services"`
	Stops   []SavedStop     `json:"stops,omitempty"`
	// Secrets are what the plan would change in secrets, as the caller writes it;
	// absent from the files of older drovers.
	Secrets json.RawMessage `json:"secret_changes,omitempty"`
}

// SavedStep is one service of a saved plan.
type SavedStep struct {
	Service   string   `json:"service"`
	Target    string   `json:"target,omitempty"`
	DependsOn []string `json:"depends_on,omitempty"`
	Secrets   []string `json:"secrets,omitempty"`
	stack.Limits
	File   string         `json:"file"`
	HCL    string         `json:"hcl"`
	Job    *api.Job       `json:"job"` // as it is registered
	Action rollout.Action `json:"action"`
	Index  uint64         `json:"job_modify_index"`
	// Counts is render.Job.Counts.
	Counts map[string]int `json:"counts,omitempty"`
}

// SavedStop is a job that a saved plan stops.
type SavedStop struct {
	Service   string `json:"service"`
	Target    string `json:"target,omitempty"`
	JobID     string `json:"job_id"`
	Namespace string `json:"namespace,omitempty"`
	Region    string `json:"region,omitempty"`
	Index     uint64 `json:"job_modify_index"`
}

// Digest is the SHA-256 of what the jobs were rendered to, hexadecimal: equal
// inputs have equal digests.
func Digest(jobs []render.Job) (string, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, j := range jobs {
		if err := enc.Encode([]any{j.Service, j.Target, j.DependsOn, j.Secrets, string(j.HCL), j.Job}); err != nil {
			return "", fmt.Errorf("encoding job of service %s: %w", j.Service, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Save freezes a plan of the jobs of s. With partial these are not all of them.
// address is that of the cluster, version that of drover. secrets is Saved.Secrets
// and may be nil.
func Save(p *Plan, s *stack.Stack, jobs []render.Job, partial bool, address, version string, secrets json.RawMessage) ([]byte, error) {
	out := Saved{Secrets: secrets, Layout: SavedLayout, Created: time.Now().UTC().Truncate(time.Second), Drover: version, Address: address, Partial: partial}
	var err error
	if out.Inputs, err = Digest(jobs); err != nil {
		return nil, err
	}
	if out.Stack, err = stack.Freeze(s); err != nil {
		return nil, err
	}
	for _, part := range p.Parts {
		for i, j := range part.Plan.Jobs() {
			c := part.changes[i]
			out.Steps = append(out.Steps, SavedStep{
				Service: j.Service, Target: j.Target, DependsOn: j.DependsOn, Secrets: j.Secrets, Limits: j.Limits, File: j.File, HCL: string(j.HCL),
				Job: j.Job, Action: c.Action, Index: c.Index, Counts: rollout.AskedCounts(part.Jobs[i]),
			})
		}
		for _, c := range part.stops {
			out.Stops = append(out.Stops, SavedStop{c.Service, part.Target, c.JobID, c.Namespace, c.Region, c.Index})
		}
	}
	return out.encode()
}

func (f *Saved) encode() (text []byte, err error) {
	if f.Sum, err = f.sum(); err != nil {
		return nil, err
	}
	if text, err = json.MarshalIndent(f, "", " "); err != nil {
		return nil, fmt.Errorf("encoding the plan: %w", err)
	}
	return append(text, '\n'), nil
}

// Scrub removes secrets that an older drover wrote into the plan in clear. It
// returns the file to write, and whether there were any.
func (f *Saved) Scrub() (text []byte, changed bool, err error) {
	frozen, changed, err := stack.Scrub(f.Stack)
	if err != nil || !changed {
		return nil, false, err
	}
	f.Stack = frozen
	text, err = f.encode()
	return text, true, err
}

func (f Saved) sum() (string, error) {
	f.Sum = ""
	text, err := json.Marshal(f) // RawMessage is compacted
	if err != nil {
		return "", fmt.Errorf("encoding the plan: %w", err)
	}
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:]), nil
}

// IsSaved reports whether a file begins like a saved plan.
func IsSaved(text []byte) bool {
	head := bytes.TrimLeft(text, " \t\r\n")
	if !bytes.HasPrefix(head, []byte("{")) {
		return false
	}
	return bytes.HasPrefix(bytes.TrimLeft(head[1:], " \t\r\n"), []byte(`"drover_plan"`))
}

// ReadSaved reads a saved plan. It refuses one that was changed after drover wrote it.
func ReadSaved(text []byte) (*Saved, error) {
	var layout struct {
		Layout int `json:"drover_plan"`
	}
	if err := json.Unmarshal(text, &layout); err != nil {
		return nil, fmt.Errorf("not a whole plan file: %w; make it again with drover plan -out", err)
	}
	if layout.Layout != SavedLayout {
		return nil, fmt.Errorf("a plan file of layout %d, and this drover knows %d; deploy it with the drover that wrote it", layout.Layout, SavedLayout)
	}
	var f Saved
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("not a plan file as drover writes them: %w; make it again with drover plan -out", err)
	}
	if _, err := dec.Token(); err == nil || dec.More() {
		return nil, errors.New("something follows the plan in this file; make it again with drover plan -out")
	}
	sum, err := f.sum()
	if err != nil {
		return nil, err
	}
	if sum != f.Sum {
		return nil, errors.New("this plan file was changed after drover wrote it (its checksum does not fit); make it again with drover plan -out")
	}
	for _, s := range f.Steps {
		if s.Job == nil || s.Job.ID == nil || *s.Job.ID == "" || s.Service == "" || !whole(s.Job) {
			return nil, errors.New("not a plan file as drover writes them: a service has no job, or one without parts; make it again with drover plan -out")
		}
	}
	return &f, nil
}

// whole reports whether no required part of a job is null.
func whole(job *api.Job) bool {
	for _, g := range job.TaskGroups {
		if g == nil || g.Name == nil || slices.Contains(g.Services, nil) || slices.Contains(g.Networks, nil) {
			return false
		}
		for _, v := range g.Volumes {
			if v == nil {
				return false
			}
		}
		for _, t := range g.Tasks {
			if t == nil || slices.Contains(t.Services, nil) || slices.Contains(t.Templates, nil) {
				return false
			}
		}
	}
	return true
}

// Jobs are the jobs of the plan, as they will be registered.
func (f *Saved) Jobs() []render.Job {
	out := make([]render.Job, len(f.Steps))
	for i, s := range f.Steps {
		out[i] = render.Job{Service: s.Service, Target: s.Target, DependsOn: s.DependsOn, Secrets: s.Secrets, Limits: s.Limits, File: s.File, HCL: []byte(s.HCL), Job: s.Job, Counts: s.Counts}
	}
	return out
}

// StalePlanError is the error of a saved plan if the cluster has changed since.
type StalePlanError struct {
	What []string // one line for each job
}

func (e *StalePlanError) Error() string {
	return "since the plan was made:\n  " + strings.Join(e.What, "\n  ") + "\nnothing was done; plan again"
}

func (s SavedStep) name() string {
	return jobName(s.Target, *s.Job.ID, nomad.Deref(s.Job.Namespace), nomad.Deref(s.Job.Region))
}

func (s SavedStop) name() string { return jobName(s.Target, s.JobID, s.Namespace, s.Region) }

// jobName names a job in a message.
func jobName(target, id, namespace, region string) string {
	name := fmt.Sprintf("job %q", id)
	if namespace != "" && namespace != api.DefaultNamespace {
		name += " in namespace " + namespace
	}
	if region != "" && region != api.GlobalRegion {
		name += " in region " + region
	}
	if target != "" {
		name += " (target " + target + ")"
	}
	return name
}

// Check compares a saved plan with the plan that was made of its jobs just now. It
// returns a *StalePlanError if a deploy would do anything else than was shown.
func (f *Saved) Check(now *Plan) error {
	var e StalePlanError
	say := func(format string, args ...any) { e.What = append(e.What, fmt.Sprintf(format, args...)) }
	steps, stops := map[jobKey]rollout.Change{}, map[jobKey]rollout.Change{}
	for _, part := range now.Parts {
		for _, c := range part.changes {
			steps[now.changeKey(part.Target, c)] = c
		}
		for _, c := range part.stops {
			c.Target = part.Target
			stops[now.changeKey(part.Target, c)] = c
		}
	}
	for _, then := range f.Steps {
		name := then.name()
		c, planned := steps[now.jobKey(then.Target, then.Job)]
		switch {
		case !planned:
			say("%s is no longer in the plan", name)
		case then.Index == 0 && c.Index != 0:
			say("%s was created since", name)
		case then.Index != 0 && c.Index == 0:
			say("%s was purged since", name)
		case then.Index != c.Index:
			say("%s was changed (JobModifyIndex %d, the plan saw %d)", name, c.Index, then.Index)
		case then.Action != c.Action:
			say("%s: the plan was %q and would be %q now", name, then.Action, c.Action)
		}
	}
	for _, then := range f.Stops {
		name := then.name()
		key := jobKey{then.Target, now.defaults[then.Target].JobID(then.Region, then.Namespace, then.JobID)}
		c, there := stops[key]
		delete(stops, key)
		switch {
		case !there:
			say("%s, to be stopped, is not there any more", name)
		case c.Index != then.Index:
			say("%s, to be stopped, was changed (JobModifyIndex %d, the plan saw %d)", name, c.Index, then.Index)
		}
	}
	var added []string
	for _, c := range stops {
		added = append(added, jobName(c.Target, c.JobID, c.Namespace, c.Region))
	}
	slices.Sort(added)
	for _, name := range added {
		say("%s would be stopped now, which the plan did not show", name)
	}
	if len(e.What) > 0 {
		return &e
	}
	return nil
}
