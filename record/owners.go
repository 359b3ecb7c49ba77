package record

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/stack"
)

// LiveJob is a job as Nomad has it now.
type LiveJob struct {
	// Cluster is the address of the target's cluster, "" for the cluster of the
	// command line.
	Cluster   string
	Region    string // "" matches every region
	Namespace string
	ID        string
	Index     uint64 // JobModifyIndex
}

// Owner is the stack and environment whose newest release runs a job.
type Owner struct {
	Stack       string
	Environment string
	Namespace   string // of the record
	Release     int
	Service     string
	// Exact reports whether the job is unchanged since that release.
	Exact bool
}

func (o Owner) String() string {
	text := fmt.Sprintf("release %d of stack %s, environment %s", o.Release, o.Stack, o.Environment)
	if o.Namespace != "" && o.Namespace != api.DefaultNamespace {
		text += ", in namespace " + o.Namespace
	}
	return text
}

// claim is a job that the newest release of a stack and environment runs.
type claim struct {
	owner Owner
	job   LiveJob // Index is 0 when the record does not know it
}

// Owners returns, for each job, the other stack or environment that owns it by
// its record, or nil where there is none. It reads the newest release of every
// other record in the client's region, in all namespaces that the token may
// see. It skips records that cannot be read.
func (r *Releases) Owners(ctx context.Context, jobs []LiveJob) ([]*Owner, error) {
	out := make([]*Owner, len(jobs))
	if len(jobs) == 0 {
		return out, nil
	}
	claims, err := r.claims(ctx)
	if err != nil {
		return nil, err
	}
	for i, j := range jobs {
		out[i] = ownerOf(j, claims)
	}
	return out, nil
}

// ownerOf returns the owner of a job: the record whose JobModifyIndex is the
// live one, otherwise the first record that runs a job of that name.
func ownerOf(j LiveJob, claims []claim) *Owner {
	var found *Owner
	for _, c := range claims {
		if !c.job.matches(j) {
			continue
		}
		if c.job.Index != 0 && c.job.Index == j.Index {
			o := c.owner
			o.Exact = true
			return &o
		}
		if found == nil {
			o := c.owner
			found = &o
		}
	}
	return found
}

func (j LiveJob) matches(other LiveJob) bool {
	return j.ID == other.ID && j.Namespace == other.Namespace &&
		strings.TrimSuffix(j.Cluster, "/") == strings.TrimSuffix(other.Cluster, "/") &&
		(j.Region == other.Region || j.Region == "" || other.Region == "")
}

// claims reads the newest release of every record but r itself, ordered by
// namespace, stack and environment.
func (r *Releases) claims(ctx context.Context) ([]claim, error) {
	all, err := newest(ctx, r.client, api.AllNamespacesNamespace)
	if err != nil {
		return nil, err
	}
	home, err := r.namespace(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(e entry) bool {
		return e.stack == r.stack && e.env == r.env && e.namespace == home
	})
	found := make([][]claim, len(all))
	err = parallel.Each(len(all), 8, func(i int) error {
		e := all[i]
		rel := e.open(r.client)
		head, err := rel.Read(ctx, e.number)
		var lines []Service
		if err == nil {
			lines, err = rel.Services(ctx, head)
		}
		if err == nil {
			found[i] = claimsOf(head, lines, e.namespace)
		}
		if isOutage(err) {
			return fmt.Errorf("cannot read the newest release of stack %s (environment %s): %w", e.stack, e.env, err)
		}
		return nil // one unreadable record must not block every other stack
	})
	return slices.Concat(found...), err
}

// isOutage reports whether err says nothing about the record itself: Nomad was
// not reached, failed, or was not waited for.
func isOutage(err error) bool {
	var network *url.Error
	return errors.As(err, &network) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		nomad.StatusCode(err) >= http.StatusInternalServerError
}

func claimsOf(head *Release, lines []Service, namespace string) []claim {
	var targets []*stack.Target
	_ = json.Unmarshal(head.Targets, &targets) // without targets all jobs are where the record is
	at := map[string]*stack.Target{}
	for _, t := range targets {
		at[t.Name] = t
	}
	var out []claim
	for _, l := range lines {
		left := l.Leftover()
		if !left.Runs {
			continue
		}
		job := LiveJob{Region: l.Region, Namespace: cmp.Or(l.Namespace, namespace), ID: l.JobID, Index: left.Index}
		if t := at[l.Target]; t != nil {
			job.Region = cmp.Or(l.Region, t.Region)
			if t.Cluster != nil {
				job.Cluster, job.Namespace = t.Cluster.Address, cmp.Or(l.Namespace, api.DefaultNamespace)
			}
		}
		out = append(out, claim{job: job, owner: Owner{
			Stack: head.Stack, Environment: head.Environment, Namespace: namespace, Release: head.Number, Service: l.Name,
		}})
	}
	return out
}

// Leftover is what a release left of a job.
type Leftover struct {
	Runs   bool           // the job should be registered and not stopped
	Digest string         // of its spec; "" when it is not known
	Index  uint64         // its JobModifyIndex then; 0 when it is not known
	Counts map[string]int // that the stack asked for: see Service.Counts
}

// Leftover returns what the release left of the job of this line.
func (s Service) Leftover() Leftover {
	before := Leftover{s.Before != "" && !s.BeforeStopped, s.Before, s.Planned, s.BeforeCounts}
	switch s.Step {
	case StepPending:
		return before
	case StepReverted:
		before.Index = s.Index
		return before
	case StepPruned:
		return Leftover{}
	case StepPruning:
		return Leftover{Runs: true, Digest: s.Before, Index: s.Planned, Counts: s.BeforeCounts}
	}
	return Leftover{Runs: s.Spec != "", Digest: s.Spec, Index: s.Index, Counts: s.Counts}
}

// entry is a stack and environment that has releases.
type entry struct {
	namespace, stack, env string
	number                int // of the newest release
}

// open returns the record of the entry, whatever namespace client has.
func (e entry) open(client *api.Client) *Releases {
	c := *client
	c.SetNamespace(e.namespace)
	return OpenReleases(&c, e.stack, e.env)
}

// newest lists the stacks and environments with releases, ordered by namespace,
// stack and environment. namespace "" is that of the client, "*" all. A token
// that may list none gets none.
func newest(ctx context.Context, client *api.Client, namespace string) ([]entry, error) {
	list, _, err := client.Variables().PrefixList(stacksFolder, (&api.QueryOptions{Namespace: namespace}).WithContext(ctx))
	if nomad.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing stacks: %w", err)
	}
	return entriesOf(list), nil
}

func entriesOf(list []*api.VariableMetadata) []entry {
	type folder struct{ namespace, stack, env string }
	numbers := map[folder]int{}
	for _, v := range list {
		parts := strings.Split(strings.TrimPrefix(v.Path, stacksFolder), "/")
		if len(parts) != 4 || parts[2] != "releases" {
			continue
		}
		if n, err := strconv.Atoi(parts[3]); err == nil {
			f := folder{v.Namespace, nameOf(parts[0]), nameOf(parts[1])}
			numbers[f] = max(numbers[f], n)
		}
	}
	out := make([]entry, 0, len(numbers))
	for f, n := range numbers {
		out = append(out, entry{f.namespace, f.stack, f.env, n})
	}
	slices.SortFunc(out, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.stack, b.stack), cmp.Compare(a.env, b.env))
	})
	return out
}

// OtherEnvironments returns the records of the other environments of the stack,
// ordered by name.
func (r *Releases) OtherEnvironments(ctx context.Context) ([]*Releases, error) {
	folder := stacksFolder + PathName(r.stack) + "/"
	list, _, err := r.client.Variables().PrefixList(folder, (&api.QueryOptions{}).WithContext(ctx))
	if nomad.IsForbidden(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the environments of stack %s: %w", r.stack, err)
	}
	var out []*Releases
	for _, e := range entriesOf(list) {
		if e.env != r.env {
			out = append(out, OpenReleases(r.client, e.stack, e.env))
		}
	}
	return out, nil
}

// namespace returns the namespace in which the record is, "" when it has no
// release: the client does not tell its own.
func (r *Releases) namespace(ctx context.Context) (string, error) {
	list, _, err := r.client.Variables().PrefixList(r.folder+"/releases/", (&api.QueryOptions{}).WithContext(ctx))
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Namespace, nil
}

// ListedStack is a stack and environment with its newest release.
type ListedStack struct {
	Stack       string   `json:"stack"`
	Environment string   `json:"environment"`
	Release     *Release `json:"release"`         // nil when it cannot be read
	Holder      *Holder  `json:"lock"`            // nil if the lock is free
	Error       string   `json:"error,omitempty"` // why the release cannot be read
}

// ListStacks returns every stack and environment with releases in the client's
// region and namespace, ordered by name. A record that cannot be read is an
// entry with an error.
func ListStacks(ctx context.Context, client *api.Client) ([]ListedStack, error) {
	list, _, err := client.Variables().PrefixList(stacksFolder, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && len(list) == 0 {
		err = variables.CheckList(ctx, client, strings.TrimSuffix(stacksFolder, "/"))
	}
	if err != nil {
		return nil, fmt.Errorf("listing stacks: %w", err)
	}
	entries := entriesOf(list)
	held := map[string]bool{}
	for _, v := range list {
		if strings.HasSuffix(v.Path, "/lock") {
			held[v.Path] = variables.IsLocked(v.Lock, v.CreateIndex, v.ModifyIndex)
		}
	}
	out := make([]ListedStack, len(entries))
	err = parallel.Each(len(entries), 8, func(i int) error {
		e := entries[i]
		r := OpenReleases(client, e.stack, e.env)
		l := ListedStack{Stack: e.stack, Environment: e.env}
		var err error
		if l.Release, err = r.Read(ctx, e.number); err != nil {
			if isOutage(err) {
				return err
			}
			l.Error = err.Error()
		}
		if held[r.lockPath()] {
			if l.Holder, err = r.Holder(ctx); err != nil {
				return err
			}
		}
		out[i] = l
		return nil
	})
	return out, err
}
