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
)

// jobAt is what tells jobs apart.
type jobAt struct {
	place
	id string
}

func (s spec) at() jobAt { return jobAt{place{s.region, s.namespace}, s.id} }

// listed is what Nomad's lists say of a job.
type listed struct {
	stub   *api.JobListStub
	allocs []*api.AllocationListStub // of this job, not of one with its ID before
}

// list reads jobs and their allocations, two requests for each region and
// namespace however many jobs there are (GET /v1/jobs and /v1/allocations with
// a filter). A job that is not there is not in the answer.
func list(ctx context.Context, c Clients, specs []spec) (map[jobAt]*listed, error) {
	out := map[jobAt]*listed{}
	var mu sync.Mutex
	err := eachPlace(ctx, specs, func(at place, query func(string) *api.QueryOptions) error {
		var (
			stubs     []*api.JobListStub
			allocs    []*api.AllocationListStub
			jerr, err error
			wg        sync.WaitGroup
		)
		wg.Go(func() { stubs, _, jerr = c.Nomad.Jobs().List(query("ID")) })
		allocs, _, err = c.Nomad.Allocations().List(query("JobID"))
		wg.Wait()
		if err = cmp.Or(jerr, err); err != nil { // mostly for the same reason
			return fmt.Errorf("listing jobs and allocations: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, s := range stubs {
			out[jobAt{at, s.ID}] = &listed{stub: s}
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

// eachPlace calls f for each region and namespace of the jobs, side by side.
// query narrows a list to the jobs there: field is what it calls their ID.
func eachPlace(ctx context.Context, specs []spec, f func(at place, query func(field string) *api.QueryOptions) error) error {
	ids := map[place][]string{}
	for _, s := range specs {
		at := s.at()
		ids[at.place] = append(ids[at.place], at.id)
	}
	places := slices.Collect(maps.Keys(ids))
	return each(len(places), 8, func(i int) error {
		at := places[i]
		return f(at, func(field string) *api.QueryOptions {
			q := &api.QueryOptions{Region: at.region, Namespace: at.namespace}
			if len(ids[at]) <= 100 { // a longer one would not fit into the URL everywhere
				q.Filter = oneOf(field, ids[at])
			}
			return q.WithContext(ctx)
		})
	})
}

// oneOf is a filter expression of Nomad's API: the field is one of the values.
func oneOf(field string, values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return field + " matches " + strconv.Quote("^(?:"+strings.Join(quoted, "|")+")$")
}

// versioned is what the lists do not say of a job: its version, and how many
// allocations its groups ask for.
type versioned struct {
	Version       uint64
	GroupCountSum int
}

// versions reads that, one request for each region and namespace (GET
// /v1/jobs/statuses with a filter).
func versions(ctx context.Context, c Clients, specs []spec) (map[jobAt]versioned, error) {
	out := map[jobAt]versioned{}
	var mu sync.Mutex
	err := eachPlace(ctx, specs, func(at place, query func(string) *api.QueryOptions) error {
		var answer []struct {
			ID string
			versioned
		}
		if _, err := c.Nomad.Raw().Query("/v1/jobs/statuses", &answer, query("ID")); err != nil {
			return fmt.Errorf("reading the statuses of jobs: %w", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range answer {
			out[jobAt{at, a.ID}] = a.versioned
		}
		return nil
	})
	return out, err
}
