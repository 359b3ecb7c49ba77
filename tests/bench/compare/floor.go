package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
)

// floor posts the rendered jobs in dependency order and waits for the same
// gates as drover: the deployment successful, the checks passing.
type floor struct {
	nomad  *api.Client
	consul *capi.Client
	jobs   []render.Job
}

func newFloor(b *bench, jobs []render.Job) (*floor, error) {
	f := &floor{jobs: jobs}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	var err error
	if f.nomad, err = api.NewClient(&api.Config{Address: b.get("NOMAD_ADDR"), HttpClient: client}); err != nil {
		return nil, err
	}
	f.consul, err = capi.NewClient(&capi.Config{Address: b.get("CONSUL_HTTP_ADDR")})
	return f, err
}

// deployFloor brings up the jobs and does nothing else.
func (b *bench) deployFloor(ctx context.Context, jobs []render.Job) (usage, error) {
	f, err := newFloor(b, jobs)
	if err != nil {
		return usage{}, err
	}
	began := time.Now()
	if err := f.deploy(ctx); err != nil {
		return usage{}, fmt.Errorf("floor: %w", err)
	}
	return usage{elapsed: time.Since(began)}, nil
}

func (f *floor) deploy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	done := map[string]chan struct{}{}
	for _, j := range f.jobs {
		done[j.Service] = make(chan struct{})
	}
	// Nomad allows 100 connections from one address.
	places := make(chan struct{}, 64)
	errs := make(chan error, len(f.jobs))
	for _, j := range f.jobs {
		go func() {
			for _, d := range j.DependsOn {
				select {
				case <-done[d]:
				case <-ctx.Done():
					errs <- ctx.Err()
					return
				}
			}
			places <- struct{}{}
			err := f.one(ctx, j.Job)
			<-places
			if err == nil {
				close(done[j.Service])
			} else {
				cancel()
			}
			errs <- err
		}()
	}
	var all error
	for range f.jobs {
		all = errors.Join(all, <-errs)
	}
	return all
}

func (f *floor) one(ctx context.Context, job *api.Job) error {
	registered, _, err := f.nomad.Jobs().Register(job, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return err
	}
	if err := f.deployed(ctx, job, registered.JobModifyIndex); err != nil {
		return err
	}
	return f.passing(ctx, job)
}

// deployed waits for the deployment of a version of a job; of any when index
// is 0.
func (f *floor) deployed(ctx context.Context, job *api.Job, version uint64) error {
	for index := uint64(0); ; {
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
		deployments, meta, err := f.nomad.Jobs().Deployments(*job.ID, true, q)
		if err != nil {
			return err
		}
		if len(deployments) > 0 && (version == 0 || deployments[0].JobSpecModifyIndex == version) {
			switch deployments[0].Status {
			case api.DeploymentStatusSuccessful:
				return nil
			case api.DeploymentStatusFailed, api.DeploymentStatusCancelled:
				return fmt.Errorf("%s: deployment %s", *job.ID, deployments[0].StatusDescription)
			}
		}
		index = meta.LastIndex
	}
}

// healthy waits until jobs that another client submitted are healthy.
func (f *floor) healthy(ctx context.Context) error {
	return parallel(f.jobs, func(j render.Job) error {
		if err := f.deployed(ctx, j.Job, 0); err != nil {
			return err
		}
		return f.passing(ctx, j.Job)
	})
}

// purge purges the jobs, which drover did not register and does not destroy, and
// waits until none of their allocations runs.
func (f *floor) purge(ctx context.Context) error {
	return parallel(f.jobs, func(j render.Job) error {
		if _, _, err := f.nomad.Jobs().Deregister(*j.Job.ID, true, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
			return err
		}
		for index := uint64(0); ; {
			q := (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
			allocs, meta, err := f.nomad.Jobs().Allocations(*j.Job.ID, true, q)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
				return a.ClientStatus == api.AllocClientStatusPending || a.ClientStatus == api.AllocClientStatusRunning
			}) {
				return nil
			}
			index = meta.LastIndex
		}
	})
}

// longest is the time along the path through the dependencies on which the
// newest deployments took longest, each from its creation until its last
// allocation was healthy.
func (f *floor) longest(ctx context.Context) (time.Duration, error) {
	until := map[string]time.Duration{}
	var most time.Duration
	for _, j := range f.jobs { // in dependency order
		q := (&api.QueryOptions{}).WithContext(ctx)
		d, _, err := f.nomad.Jobs().LatestDeployment(*j.Job.ID, q)
		if err != nil {
			return 0, err
		}
		var took time.Duration
		if d != nil {
			allocs, _, err := f.nomad.Deployments().Allocations(d.ID, q)
			if err != nil {
				return 0, err
			}
			for _, a := range allocs {
				if a.DeploymentStatus != nil {
					took = max(took, a.DeploymentStatus.Timestamp.Sub(time.Unix(0, d.CreateTime)))
				}
			}
		}
		for _, before := range j.DependsOn {
			until[j.Service] = max(until[j.Service], until[before])
		}
		until[j.Service] += took
		most = max(most, until[j.Service])
	}
	return most, nil
}

func (f *floor) passing(ctx context.Context, job *api.Job) error {
	for _, group := range job.TaskGroups {
		for _, service := range group.Services {
			for index := uint64(0); ; {
				q := (&capi.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
				entries, meta, err := f.consul.Health().Service(service.Name, "", true, q)
				if err != nil {
					return err
				}
				if len(entries) > 0 {
					break
				}
				index = meta.LastIndex
			}
		}
	}
	return nil
}
