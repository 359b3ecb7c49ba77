package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge"
)

const (
	probeEvery = 30 * time.Second
	// A new certificate is probed more often until it is served.
	probeSoon    = time.Second
	probeSoonFor = time.Minute
	probeTimeout = 5 * time.Second
)

// probes checks what the edge serves.
func (c *controller) probes(ctx context.Context) {
	if c.c.Edge == nil {
		return
	}
	var (
		last string
		soon time.Time
	)
	for {
		all, err := c.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		c.warn("served", &last, err)
		if err == nil {
			c.metrics.done("served")
		}
		pause := probeEvery
		if !all && time.Now().Before(soon) {
			pause = probeSoon
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-c.stored:
			soon = time.Now().Add(probeSoonFor)
		}
	}
}

// probe connects, for every certificate, to every instance of the edge that reads it (to
// all if none does), and reports whether all instances serve the stored ones. If some addresses are unknown, it probes
// the others for the metrics only, and changes the state of no certificate.
func (c *controller) probe(ctx context.Context) (all bool, err error) {
	ask, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	places, unknown := c.c.Edge(ask)
	if unknown != nil && len(places) == 0 {
		c.metrics.serve(nil)
		return false, unknown
	}
	list, err := c.store.List(ctx)
	errs := []error{unknown, err}
	all = unknown == nil && len(places) > 0
	results := map[string][]acme.Served{}
	for _, o := range list {
		name := o.Spec.Name
		if o.Spec.NoEdge {
			continue
		}
		addresses := edge.Reading(places, name)
		if unknown != nil {
			results[name] = o.Served(ctx, addresses, probeTimeout)
			continue
		}
		served, now, err := c.manager.Verify(ctx, name, addresses, probeTimeout)
		if err != nil {
			if !errors.Is(err, acme.ErrNotFound) && !errors.Is(err, acme.ErrConflict) {
				errs = append(errs, err)
			}
			continue
		}
		results[name] = served
		i := slices.IndexFunc(served, func(s acme.Served) bool { return !s.Match })
		all = all && i < 0
		switch {
		case now.Status.Phase == acme.Ready && o.Status.Phase != acme.Ready:
			c.report(now, "served", fmt.Sprintf("by every instance of the edge (%d)", len(served)))
		case i >= 0 && now.Status.Phase != acme.Ready && o.Status.Phase == acme.Ready:
			c.report(now, "warning", served[i].Address+" "+served[i].Problem)
		}
	}
	c.metrics.serve(results)
	return all, errors.Join(errs...)
}

// report passes an event about a certificate to event.
func (c *controller) report(o *acme.Object, kind, text string) {
	c.metrics.stale()
	c.event(acme.Event{
		Time: c.clock.Now().UTC().Truncate(time.Millisecond), Kind: kind,
		Certificate: o.Spec.Name, Names: o.Spec.Names, Issuer: o.Status.Issuer, Serial: o.Status.Serial, Text: text,
	})
}
