package rollout

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
)

// jobAt is what tells jobs apart.
type jobAt struct {
	place
	id string
}

func (s spec) at() jobAt { return jobAt{place{s.region, s.namespace}, s.id} }

func placesOf(specs []spec) []jobAt {
	out := make([]jobAt, len(specs))
	for i, s := range specs {
		out[i] = s.at()
	}
	return out
}

// listed is what Nomad's lists say of a job.
type listed struct {
	stub   *api.JobListStub
	allocs []*api.AllocationListStub // of this job, not of one with its ID before
	versioned
}

// versioned is what only GET /v1/jobs/statuses says of a job.
type versioned struct {
	Version          uint64
	GroupCountSum    int               // allocations that the groups ask for
	LatestDeployment *latestDeployment // nil when Nomad has none; it may be of an older version
}

type latestDeployment struct {
	JobVersion        uint64
	Status            string
	StatusDescription string
	RequiresPromotion bool
}

// deploying reports whether a deployment of the current version is in progress.
func (v versioned) deploying() bool {
	d := v.LatestDeployment
	return d != nil && d.JobVersion == v.Version && inProgress(d.Status)
}

// failed reports whether the deployment of the current version has failed.
func (v versioned) failed() bool {
	d := v.LatestDeployment
	return d != nil && d.JobVersion == v.Version && d.Status == api.DeploymentStatusFailed
}

// live returns the allocations of the current version that count, and how many
// of other versions still run or start.
func (l *listed) live(s spec) (live []*api.AllocationListStub, others int) {
	for _, a := range current(l.allocs) {
		switch {
		case a.JobVersion == l.Version:
			live = append(live, a)
		case a.ClientStatus == api.AllocClientStatusRunning, a.ClientStatus == api.AllocClientStatusPending:
			others++
		case !s.finite() && a.ClientStatus != api.AllocClientStatusComplete:
			live = append(live, a) // failed, and Nomad updates no failed allocation in place
		}
	}
	return live, others
}

// list reads jobs, their versions and their allocations: three requests for
// each region and namespace, however many jobs there are (GET /v1/jobs,
// /v1/jobs/statuses and /v1/allocations with a filter). A job that is not there
// is not in the answer.
func list(ctx context.Context, c nomad.Clients, jobs []jobAt) (map[jobAt]*listed, error) {
	out := map[jobAt]*listed{}
	var mu sync.Mutex
	err := eachPlace(ctx, jobs, func(at place, query func(string) *api.QueryOptions) error {
		var (
			stubs  []*api.JobListStub
			allocs []*api.AllocationListStub
			of     []struct {
				ID string
				versioned
			}
			jerr, verr, err error
			wg              sync.WaitGroup
		)
		wg.Go(func() {
			fields := &api.JobListOptions{Fields: &api.JobListFields{Meta: true}} // see RestartMeta
			stubs, _, jerr = c.Nomad.Jobs().ListOptions(fields, query("ID"))
		})
		wg.Go(func() { _, verr = c.Nomad.Raw().Query("/v1/jobs/statuses", &of, query("ID")) })
		allocs, _, err = c.Nomad.Allocations().List(query("JobID"))
		wg.Wait()
		if err = cmp.Or(jerr, verr, err); err != nil { // mostly for the same reason
			return fmt.Errorf("listing jobs and allocations: %w", err)
		}
		known := map[string]versioned{}
		for _, v := range of {
			known[v.ID] = v.versioned
		}
		if err := unlisted(ctx, c, at, stubs, known); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, s := range stubs {
			out[jobAt{at, s.ID}] = &listed{stub: s, versioned: known[s.ID]}
		}
		for _, a := range allocs {
			if l := out[jobAt{at, a.JobID}]; l != nil && a.CreateIndex >= l.stub.CreateIndex {
				l.allocs = append(l.allocs, a)
			}
		}
		return nil
	})
	return out, err
}

// Listing reads jobs once for all plans that are made with it, and opens one event
// stream for those that are applied at the same time. They must be of clients that reach
// the same servers with the same token, region and namespace.
type Listing struct {
	mu   sync.Mutex
	of   []jobAt
	jobs map[jobAt]*listed // nil before they are read

	feeding  sync.Mutex
	followed []jobAt // by any of the plans
	feed     *feed   // nil while no plan is applied
}

// follows notes the jobs that a plan follows when it is applied.
func (l *Listing) follows(specs []spec) {
	if l == nil {
		return
	}
	l.feeding.Lock()
	defer l.feeding.Unlock()
	l.followed = append(l.followed, placesOf(specs)...)
}

// subscribe gives a hub the events of its jobs until ctx ends. A nil Listing has a
// stream for each hub.
func (l *Listing) subscribe(ctx context.Context, client *api.Client, h *hub, specs []spec) {
	if l == nil {
		f := newFeed(ctx, client, placesOf(specs))
		f.add(h)
		context.AfterFunc(ctx, func() { f.remove(h) })
		return
	}
	l.feeding.Lock()
	defer l.feeding.Unlock()
	if l.feed == nil {
		l.feed = newFeed(ctx, client, l.followed)
	}
	f := l.feed
	f.add(h)
	context.AfterFunc(ctx, func() {
		l.feeding.Lock()
		defer l.feeding.Unlock()
		if f.remove(h) && l.feed == f {
			l.feed = nil
		}
	})
}

// NewListing makes no request.
func NewListing(jobs []render.Job) *Listing {
	l := &Listing{of: make([]jobAt, len(jobs))}
	for i, j := range jobs {
		l.of[i] = jobAt{place{nomad.Deref(j.Job.Region), nomad.Deref(j.Job.Namespace)}, nomad.Deref(j.Job.ID)}
	}
	return l
}

// read returns the jobs of the listing, which must have those of specs. A nil
// Listing reads just these.
func (l *Listing) read(ctx context.Context, c nomad.Clients, specs []spec) (map[jobAt]*listed, error) {
	if l == nil {
		return list(ctx, c, placesOf(specs))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs != nil {
		return l.jobs, nil
	}
	var err error
	if l.jobs, err = list(ctx, c, l.of); err == nil {
		l.of = nil
	}
	return l.jobs, err
}

// unlisted adds the jobs that /v1/jobs/statuses leaves out (GET /v1/job/:id and
// /v1/job/:id/deployment). Nomad 1.11.3 was seen to leave out one that had just
// ended, on a cluster where several jobs ended at once; without its version and
// count, a failed job would count as healthy.
func unlisted(ctx context.Context, c nomad.Clients, at place, stubs []*api.JobListStub, known map[string]versioned) error {
	q := func() *api.QueryOptions {
		return (&api.QueryOptions{Region: at.region, Namespace: at.namespace}).WithContext(ctx)
	}
	for _, s := range stubs {
		if _, ok := known[s.ID]; ok {
			continue
		}
		job, _, err := c.Nomad.Jobs().Info(s.ID, q())
		switch {
		case nomad.IsNotFound(err): // purged meanwhile
			continue
		case err != nil:
			return fmt.Errorf("reading job %q: %w", s.ID, err)
		}
		v := versioned{Version: nomad.Deref(job.Version)}
		for _, g := range job.TaskGroups {
			v.GroupCountSum += nomad.DerefOr(g.Count, 1)
		}
		d, _, err := c.Nomad.Jobs().LatestDeployment(s.ID, q())
		if err != nil {
			return fmt.Errorf("reading the deployment of job %q: %w", s.ID, err)
		}
		if d != nil {
			v.LatestDeployment = &latestDeployment{JobVersion: d.JobVersion, Status: d.Status, StatusDescription: d.StatusDescription}
			for _, g := range d.TaskGroups {
				v.LatestDeployment.RequiresPromotion = v.LatestDeployment.RequiresPromotion || g.DesiredCanaries > 0 && !g.Promoted
			}
		}
		known[s.ID] = v
	}
	return nil
}

// eachPlace calls f for each region and namespace of the jobs, side by side.
// query narrows a list to the jobs there: field is what it calls their ID.
func eachPlace(ctx context.Context, jobs []jobAt, f func(at place, query func(field string) *api.QueryOptions) error) error {
	ids := map[place][]string{}
	for _, at := range jobs {
		ids[at.place] = append(ids[at.place], at.id)
	}
	places := slices.Collect(maps.Keys(ids))
	return parallel.Each(len(places), 8, func(i int) error {
		at := places[i]
		return f(at, func(field string) *api.QueryOptions {
			q := &api.QueryOptions{Region: at.region, Namespace: at.namespace}
			if len(ids[at]) <= filterLimit {
				q.Filter = oneOf(field, ids[at])
			}
			return q.WithContext(ctx)
		})
	})
}

// filterLimit is how many job IDs a filter names: a longer one would not fit into
// the URL everywhere.
const filterLimit = 100

// oneOf is a filter expression of Nomad's API: the field is one of the values.
func oneOf(field string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return field + " matches " + strconv.Quote("^(?:"+strings.Join(quoted, "|")+")$")
}
