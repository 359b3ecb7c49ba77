// Package bench compares drover with a floor: the same work by a program that
// does nothing else, in the same run on the same machine.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// BenchmarkDeploy brings the whole of oCIS up from nothing, by drover and by
// the floor in turn, and reports both times and their ratio.
func BenchmarkDeploy(b *testing.B) {
	cluster := devtest.Cluster(b, devcluster.Options{Tools: []string{devcluster.OCIS}})
	env, err := cluster.Env("")
	if err != nil {
		b.Fatal(err)
	}
	binary := filepath.Join(b.TempDir(), "drover")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", binary, "../../cmd/drover").CombinedOutput(); err != nil {
		b.Fatalf("building drover: %v\n%s", err, out)
	}
	drover := func(args ...string) {
		b.Helper()
		cmd := exec.CommandContext(b.Context(), binary, args...)
		cmd.Env = append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("drover %v: %v\n%s", args, err, out)
		}
	}
	f, err := newFloor(b.Context(), cluster, env)
	if err != nil {
		b.Fatal(err)
	}
	// The floor does not make secrets: the first, unmeasured deploy does, and
	// it warms the caches of the file system for both.
	drover("deploy", "ocis", "-e", "dev", "--no-certificates")
	drover("destroy", "ocis", "-e", "dev", "-y")

	var ours, floor time.Duration
	for b.Loop() {
		began := time.Now()
		if err := f.deploy(b.Context()); err != nil {
			b.Fatal(err)
		}
		floor += time.Since(began)
		drover("destroy", "ocis", "-e", "dev", "-y")

		began = time.Now()
		drover("deploy", "ocis", "-e", "dev", "--no-certificates")
		ours += time.Since(began)
		drover("destroy", "ocis", "-e", "dev", "-y")
	}
	b.ReportMetric(ours.Seconds()/float64(b.N), "drover-s")
	b.ReportMetric(floor.Seconds()/float64(b.N), "floor-s")
	b.ReportMetric(ours.Seconds()/floor.Seconds(), "ratio")
}

// floor posts the rendered jobs in dependency order and waits for the same
// gates as drover: the deployment successful, the checks passing.
type floor struct {
	nomad  *api.Client
	consul *capi.Client
	jobs   []render.Job
}

func newFloor(ctx context.Context, cluster *devcluster.Cluster, env []string) (*floor, error) {
	dir, err := jobs.Stack("ocis")
	if err != nil {
		return nil, err
	}
	s, err := stack.Load(ctx, stack.Options{Path: "ocis", FS: dir, Environment: "dev", Environ: env})
	if err != nil {
		return nil, err
	}
	rendered, err := render.Stack(ctx, s, render.Options{})
	if err != nil {
		return nil, err
	}
	nomad, err := api.NewClient(&api.Config{Address: cluster.NomadAddr()})
	if err != nil {
		return nil, err
	}
	consul, err := capi.NewClient(&capi.Config{Address: cluster.ConsulAddr()})
	return &floor{nomad, consul, rendered}, err
}

func (f *floor) deploy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	done := map[string]chan struct{}{}
	for _, j := range f.jobs {
		done[j.Service] = make(chan struct{})
	}
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
			err := f.one(ctx, j.Job)
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
	w := (&api.WriteOptions{}).WithContext(ctx)
	registered, _, err := f.nomad.Jobs().Register(job, w)
	if err != nil {
		return err
	}
	for index := uint64(0); ; {
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: time.Minute}).WithContext(ctx)
		deployments, meta, err := f.nomad.Jobs().Deployments(*job.ID, true, q)
		if err != nil {
			return err
		}
		if len(deployments) > 0 && deployments[0].JobSpecModifyIndex == registered.JobModifyIndex {
			switch deployments[0].Status {
			case api.DeploymentStatusSuccessful:
				return f.passing(ctx, job)
			case api.DeploymentStatusFailed, api.DeploymentStatusCancelled:
				return fmt.Errorf("%s: deployment %s", *job.ID, deployments[0].StatusDescription)
			}
		}
		index = meta.LastIndex
	}
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
