package release

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
)

// ForeignJob is a registered job that has an ID of the stack and that the
// stack's record does not own.
type ForeignJob struct {
	JobID   string
	Service string
	Target  string
	Owner   *record.Owner // nil: no record runs it
}

// Reason returns why a job is not the stack's, as a clause.
func (j ForeignJob) Reason() string {
	if j.Owner == nil {
		return "no release of this stack made it"
	}
	return fmt.Sprintf("it belongs to %s", j.Owner)
}

// ForeignError is returned for jobs that a deploy would change and that its
// stack and environment do not own.
type ForeignError struct {
	Stack, Environment string
	Jobs               []ForeignJob
	Namespace          string // of the client, "" if it is not known
	// Movable reports whether the stack and environment have no release yet, so
	// that `drover move` can give them those of the owner.
	Movable bool
}

func (e *ForeignError) Error() string {
	var lines []string
	var unowned []string
	for _, j := range e.Jobs {
		if j.Owner == nil {
			unowned = append(unowned, j.JobID)
			continue
		}
		line := fmt.Sprintf("job %s belongs to %s", j.JobID, j.Owner)
		if e.Movable && (e.Namespace == "" || e.Namespace == j.Owner.Namespace) { // a move stays in its namespace
			line += fmt.Sprintf("; `%s` gives all jobs, secrets and releases of that environment to this one", moveCommand(*j.Owner, e.Stack, e.Environment))
		}
		line += fmt.Sprintf("; to run both, give this one another job ID, as `id = \"%s-${drover.environment}\"`", j.Service)
		lines = append(lines, line)
	}
	switch len(unowned) {
	case 0:
	case 1:
		lines = append(lines, "job "+unowned[0]+" runs and is not of this stack; take over with `drover adopt`, or choose another job ID")
	default:
		lines = append(lines, "jobs "+strings.Join(unowned, ", ")+" run and are not of this stack; take over with `drover adopt`, or choose another job ID")
	}
	return strings.Join(lines, "\n")
}

// moveCommand is the command that gives what an owner has to another stack and
// environment.
func moveCommand(o record.Owner, toStack, toEnv string) string {
	cmd := fmt.Sprintf("drover move %s -e %s", o.Stack, o.Environment)
	if toEnv != o.Environment {
		cmd += " --to-env " + toEnv
	}
	if toStack != o.Stack {
		cmd += " --to-name " + toStack
	}
	return cmd
}

// Foreign returns the jobs that a deploy refuses to change, ordered by ID.
func (p *Plan) Foreign() []ForeignJob { return p.foreign }

// Spared returns the jobs of the last release that are not in the stack any
// more and that do not stop: another record owns them by now, or another client
// created them after the last release (Owner is nil).
func (p *Plan) Spared() []ForeignJob { return p.spared }

// Conflict returns a *ForeignError if another stack or environment owns a job of
// the plan.
func (p *Plan) Conflict() error {
	return p.foreignError(func(j ForeignJob) bool { return j.Owner != nil })
}

// foreignError returns a *ForeignError for the foreign jobs that refused
// selects, nil without any.
func (p *Plan) foreignError(refused func(ForeignJob) bool) error {
	jobs := slices.DeleteFunc(slices.Clone(p.foreign), func(j ForeignJob) bool { return !refused(j) })
	if len(jobs) == 0 {
		return nil
	}
	out := &ForeignError{Stack: p.stack, Environment: p.env, Jobs: jobs, Movable: p.last == nil}
	for _, t := range p.req.Targets {
		if d, known := p.defaults[t.Name]; known && t.Cluster == nil {
			out.Namespace = d.JobID("", "", "").Namespace
		}
	}
	return out
}

// suspect is a registered job whose owner the newest release does not prove.
type suspect struct {
	ForeignJob
	key   jobKey
	index uint64
	stop  bool // the plan stops it
	same  bool // the plan changes nothing of it
	runs  bool // the newest release runs it, at another index
	owner *record.Owner

	left    uint64 // the JobModifyIndex that the newest release left, 0 if not known
	created uint64 // the job's CreateIndex
}

// recreated reports whether the job was purged after the newest release and
// created by another client.
func (s suspect) recreated() bool { return s.left > 0 && s.created > s.left }

// ownership is what a plan may do with a suspect.
type ownership int

const (
	ownedByStack    ownership = iota // the plan may change it
	ownedByOther                     // another record owns it: the plan must not change it
	ownedByNone                      // no newest release runs it: an older one may have made it
	sparedForOther                   // another record owns it: the plan does not stop it
	sparedRecreated                  // another client created it: the plan does not stop it
)

// ownership decides by the records whose job this is. An identical job that no
// record has becomes the stack's.
func (s suspect) ownership() ownership {
	switch other := s.owner != nil && (s.owner.Exact || !s.runs); {
	case other && s.stop:
		return sparedForOther
	case other:
		return ownedByOther
	case s.stop && s.recreated():
		return sparedRecreated
	case s.runs || s.stop || s.same:
		return ownedByStack
	}
	return ownedByNone
}

// suspects returns the registered jobs of the plan that are not at the
// JobModifyIndex that the newest release left.
func (p *Plan) suspects() []suspect {
	newest := map[jobKey]record.Leftover{}
	for _, l := range p.lines {
		newest[p.key(l)] = l.Leftover()
	}
	var out []suspect
	add := func(s suspect) {
		lo := newest[s.key]
		if p.last != nil && !p.last.State.Open() { // one that is open may not know what it created
			s.left = lo.Index
		}
		if s.runs = lo.Runs; s.index > 0 && !(lo.Runs && lo.Index == s.index) && !p.moved[s.key] {
			out = append(out, s)
		}
	}
	for _, part := range p.Parts {
		for i, j := range part.Jobs {
			c := part.changes[i]
			add(suspect{
				ForeignJob: ForeignJob{JobID: c.JobID, Service: c.Service, Target: part.Target},
				key:        p.jobKey(part.Target, j.Job), index: c.Index, same: c.Action == rollout.ActionNone,
			})
		}
		for _, c := range part.stops {
			add(suspect{
				ForeignJob: ForeignJob{JobID: c.JobID, Service: c.Service, Target: part.Target},
				key:        p.changeKey(part.Target, c), index: c.Index, stop: true,
			})
		}
	}
	return out
}

// findForeign finds out which registered jobs of the plan are of another stack or
// environment, or of none. Jobs that the newest release proves to be the
// stack's cost nothing; otherwise the records of all other stacks are read.
//
// A job belongs to the record whose newest release left it at its live index.
// Without such a record it belongs to this one if its newest release runs the
// job (it was changed by hand), then to any other that runs it.
func (d *Deployer) findForeign(ctx context.Context, p *Plan) error {
	suspects := p.suspects()
	if len(suspects) == 0 {
		return nil
	}
	if err := d.findOwners(ctx, p, suspects); err != nil {
		return err
	}
	var unowned []suspect
	spared := map[jobKey]bool{}
	for _, s := range suspects {
		switch s.ownership() {
		case ownedByOther:
			s.Owner = s.owner
			p.foreign = append(p.foreign, s.ForeignJob)
		case sparedForOther:
			s.Owner = s.owner
			p.spared, spared[s.key] = append(p.spared, s.ForeignJob), true
		case sparedRecreated:
			p.spared, spared[s.key] = append(p.spared, s.ForeignJob), true
		case ownedByNone:
			unowned = append(unowned, s)
		case ownedByStack:
		}
	}
	if len(spared) > 0 {
		for _, part := range p.Parts {
			p.spare(part, spared)
		}
	}
	older, err := d.madeBefore(ctx, p, unowned)
	if err != nil {
		return err
	}
	for _, s := range unowned {
		if !older[s.key] {
			p.foreign = append(p.foreign, s.ForeignJob)
		}
	}
	slices.SortFunc(p.foreign, func(a, b ForeignJob) int {
		return cmp.Or(cmp.Compare(a.JobID, b.JobID), cmp.Compare(a.Target, b.Target))
	})
	return nil
}

// spare keeps jobs from being stopped.
func (p *Plan) spare(part *Part, keys map[jobKey]bool) {
	spared := func(c rollout.Change) bool { return keys[p.changeKey(part.Target, c)] }
	part.stops = slices.DeleteFunc(part.stops, spared)
	part.Plan.Spare(spared)
}

// findOwners sets the owner of each suspect by the records of other stacks and
// environments: those of the home cluster, and those of the cluster of the
// suspect's target.
func (d *Deployer) findOwners(ctx context.Context, p *Plan, suspects []suspect) error {
	live := make([]record.LiveJob, len(suspects))
	err := parallel.Each(len(suspects), 8, func(i int) error {
		s := suspects[i]
		job, err := p.clusters[s.Target].Job(ctx, record.Service{JobID: s.JobID, Namespace: s.key.Namespace, Region: s.key.Region})
		if err != nil || job == nil { // nil: purged meanwhile
			return err
		}
		suspects[i].created = nomad.Deref(job.CreateIndex)
		live[i] = record.LiveJob{Cluster: p.clusterOf(s.Target), Region: nomad.Deref(job.Region), Namespace: nomad.Deref(job.Namespace), ID: s.JobID, Index: s.index}
		return nil
	})
	if err != nil {
		return err
	}
	owners, err := d.Releases.Owners(ctx, live)
	if err != nil {
		return err
	}
	for i := range suspects {
		suspects[i].owner = owners[i]
	}
	for _, target := range p.targetNames() {
		if p.clusterOf(target) == "" {
			continue
		}
		var at []int
		var there []record.LiveJob
		for i, s := range suspects {
			if s.Target == target && (s.owner == nil || !s.owner.Exact) && live[i].ID != "" {
				j := live[i]
				j.Cluster = "" // as a record in that cluster has it
				at, there = append(at, i), append(there, j)
			}
		}
		owners, err := p.clusters[target].Owners(ctx, d.Releases.Stack(), d.Releases.Environment(), there)
		if err != nil {
			return err
		}
		for n, i := range at {
			if owners[n] != nil && (suspects[i].owner == nil || owners[n].Exact) {
				suspects[i].owner = owners[n]
			}
		}
	}
	return nil
}

// targetNames returns the targets of the plan's parts, each once.
func (p *Plan) targetNames() []string {
	var out []string
	for _, part := range p.Parts {
		if !slices.Contains(out, part.Target) {
			out = append(out, part.Target)
		}
	}
	return out
}

// clusterOf returns the address of the cluster of a target, "" for that of the
// command line.
func (p *Plan) clusterOf(name string) string {
	for _, t := range slices.Concat(p.req.Targets, p.retired) {
		if t.Name == name {
			return cluster(t)
		}
	}
	return ""
}

// madeBefore returns which of the jobs any release that is kept has made.
func (d *Deployer) madeBefore(ctx context.Context, p *Plan, jobs []suspect) (map[jobKey]bool, error) {
	made := map[jobKey]bool{}
	if len(jobs) == 0 {
		return made, nil
	}
	heads, err := d.Releases.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range heads {
		lines, err := d.Releases.Readable(ctx, h)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			if isManaged(l) {
				made[p.key(l)] = true
			}
		}
	}
	return made, nil
}
