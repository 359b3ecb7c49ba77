package edge

import (
	"context"
	"fmt"
	"slices"
	"strings"
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

// Routed are the services of these jobs that ask the edge for a route.
func Routed(jobs []*api.Job) []*api.Service {
	var out []*api.Service
	for _, s := range route.Services(jobs...) {
		if slices.ContainsFunc(s.Tags, func(t string) bool { return routeKey(t) != "" }) {
			out = append(out, s)
		}
	}
	return out
}

// Present reports which jobs run that a stack with routes and certificates needs.
type Present struct {
	Edge       bool
	Controller bool
	// Certificates are the names that every instance of the edge reads which takes a
	// service of the stack; of a stack without routes, those that any reads. It is nil
	// when none answers.
	Certificates []string
	// Untaken are the classes of services with routes that no instance takes, "" for
	// services without a class.
	Untaken []string
	// Problems are tags of the stack that an edge which takes them does not serve.
	Problems []Problem
}

// Serves reports whether the edge reads a certificate; true if that is unknown.
func (p Present) Serves(certificate string) bool {
	return p.Certificates == nil || slices.Contains(p.Certificates, certificate)
}

// Presence reads the jobs from Nomad (GET /v1/job/ID) and, for those that are not in the
// client's namespace, their services from Consul. services are those of the
// stack with routes.
func (f Finder) Presence(ctx context.Context, services []*api.Service) (Present, error) {
	var p Present
	var err error
	nomad, consul := f.Nomad, f.Consul
	if p.Controller, err = there(ctx, nomad, consul, Controller); err != nil {
		return p, err
	}
	if p.Edge, err = there(ctx, nomad, consul, ServiceName); err != nil || !p.Edge {
		return p, err
	}
	places, _ := f.Places(ctx) // the caller reports a Consul that does not answer
	p.read(places, services)
	return p, nil
}

// read adds what the instances of the edge serve.
func (p *Present) read(places []Place, services []*api.Service) {
	for i, place := range Taking(places, services) {
		switch {
		case i == 0:
			p.Certificates = append([]string{}, place.Certificates...)
		case len(services) == 0:
			p.Certificates = append(p.Certificates, place.Certificates...)
		default:
			p.Certificates = slices.DeleteFunc(p.Certificates, func(c string) bool { return !slices.Contains(place.Certificates, c) })
		}
	}
	for _, s := range services {
		takers := Taking(places, []*api.Service{s})
		if len(places) > 0 && len(takers) == 0 {
			class := ""
			for _, t := range s.Tags {
				if of, is := strings.CutPrefix(t, ClassTag); is {
					class = of
				}
			}
			p.Untaken = append(p.Untaken, class)
		}
		for _, place := range takers {
			_, problems := Parse(place.kind, s.Name, s.Tags, place.settings)
			// Only a client can interpolate these.
			p.Problems = append(p.Problems, slices.DeleteFunc(problems, func(p Problem) bool {
				return p.Costs == CostsNothing || strings.Contains(p.Service+p.Tag, "${")
			})...)
		}
	}
	p.Problems = unique(p.Problems)
	slices.Sort(p.Untaken)
	p.Untaken = slices.Compact(p.Untaken)
}

// Taking are the instances that take one of the services; all instances if there are no
// services.
func Taking(places []Place, services []*api.Service) []Place {
	if len(services) == 0 {
		return places
	}
	var out []Place
	for _, p := range places {
		if slices.ContainsFunc(services, func(s *api.Service) bool { return p.settings.Takes(s.Tags) }) {
			out = append(out, p)
		}
	}
	return out
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
