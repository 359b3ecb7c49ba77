package edge

import (
	"context"
	"fmt"
	"slices"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge/route"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/nomad"
)

// Controller is the Nomad job ID of the stack drover, and its Consul service.
const Controller = jobs.Controller

const askTimeout = 5 * time.Second

// Requested are the HOST/PATH that services of these jobs ask the edge for.
func Requested(jobs []*api.Job) []string {
	var out []string
	for _, s := range route.Services(jobs...) {
		for _, tag := range s.Tags {
			if t, ok := route.Parse(tag); ok && t.Kind == route.HTTP {
				out = append(out, t.From)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Present reports which jobs run that a stack with routes and certificates needs.
type Present struct {
	Edge       bool
	Controller bool
	// Certificates are the names that every instance of the edge reads; nil
	// when none answers.
	Certificates []string
}

// Serves reports whether the edge reads a certificate; true if that is unknown.
func (p Present) Serves(certificate string) bool {
	return p.Certificates == nil || slices.Contains(p.Certificates, certificate)
}

// Presence reads the jobs from Nomad (GET /v1/job/ID) and, for those that are not in the
// client's namespace, their services from Consul.
func (f Finder) Presence(ctx context.Context) (Present, error) {
	var p Present
	var err error
	nomad, consul := f.Nomad, f.Consul
	if p.Controller, err = there(ctx, nomad, consul, Controller); err != nil {
		return p, err
	}
	if p.Edge, err = there(ctx, nomad, consul, ServiceName); err != nil || !p.Edge {
		return p, err
	}
	places, _ := f.places(ctx) // the caller reports a Consul that does not answer
	for i, place := range places {
		if i == 0 {
			p.Certificates = append([]string{}, place.certificates...)
		}
		p.Certificates = slices.DeleteFunc(p.Certificates, func(c string) bool { return !slices.Contains(place.certificates, c) })
	}
	return p, nil
}

// there reports whether the job id exists and is not stopped, or Consul has a
// service of that name.
func there(ctx context.Context, client *api.Client, consul *capi.Client, id string) (bool, error) {
	job, _, err := client.Jobs().Info(id, (&api.QueryOptions{}).WithContext(ctx))
	switch {
	case err == nil && (job.Stop == nil || !*job.Stop):
		return true, nil
	case err == nil, nomad.IsNotFound(err):
	default:
		return false, fmt.Errorf("reading job %s: %w", id, err)
	}
	list, _, err := consul.Health().Service(id, "", true, (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return false, fmt.Errorf("asking Consul for %s: %w", id, err)
	}
	return len(list) > 0, nil
}
