// Package controller is the job that runs all the time: it renews certificates, checks
// that the edge serves them, and reconciles the DNS records of stacks.
//
// One of several replicas works: the leader, which holds a leased lock in the
// certificate store. The others wait for the lock, and answer health and metrics.
package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/tenancy"
)

// LeaderPath is where the lock is that makes a replica the leader.
const LeaderPath = "drover/controller/leader"

const (
	// leaseTTL is the shortest that Nomad and Consul take. They keep the lock
	// of a dead leader for up to twice as long and a second.
	leaseTTL  = 10 * time.Second
	campaign  = time.Second      // between two attempts to become the leader
	lookAgain = 30 * time.Second // at certificates, when none is due and none was changed
	lookEvery = 5 * time.Minute  // at the cluster

	watchPause = time.Second // between two blocking queries for certificates
)

// Config of a replica. Only Backend is required.
type Config struct {
	// Backend has the certificates and the lock.
	Backend acme.Backend
	// ACME is how certificates are issued. Store, Events, Clock, LockTTL and,
	// with Nomad, FindSolver in it are the controller's to set.
	ACME acme.Config
	// Clock decides when a renewal is due; nil means the system clock.
	Clock acme.Clock

	// Nomad has the releases, their jobs and the desired DNS records. The
	// controller compares Nomad and Consul to find stale registrations of lost
	// clients. nil disables drift, DNS and stale registrations.
	Nomad  *api.Client
	Consul *capi.Client

	// Autoscale evaluates the scaling blocks of the services of stacks; nil disables it.
	// It needs Nomad.
	Autoscale *Autoscale

	// SweepOrphans removes these registrations; otherwise they are only reported.
	SweepOrphans bool
	// LookEvery is how often these are looked for, and jobs that are not as
	// their last release left them, and DNS records that are not as a stack
	// wants them; 5 min when 0. A registration is dealt with at the second look.
	LookEvery time.Duration

	// Edge returns where certificates are served. It is called for each probe; nil
	// disables probes.
	Edge func(context.Context) ([]edge.Place, error)

	// Public returns the addresses at which clients reach the edge. It is called
	// for each reconciliation; nil if they are unknown. skipped says which instances
	// do not count; it is reported.
	Public func(context.Context) (addresses []string, skipped []error, err error)
	// Finder finds the edge, whose routes the controller decides about; nil disables
	// that. It needs Nomad and Consul.
	Finder *edge.Finder
	// Getenv has the credentials of the DNS providers that Tenancy configures:
	// os.Getenv in a program. nil for none.
	Getenv func(string) string
	// Region is that of the client Nomad; empty if it is not known. Metrics leave out
	// jobs of other regions.
	Region string
	// Namespace is that of the client Nomad; "default" when empty. Tenancy says what
	// this and other namespaces may claim; nil for a cluster with one namespace.
	Namespace string
	Tenancy   *tenancy.Table
	// Resolvers must show a record of DNS-01, instead of those that a stack
	// names; SkipDNSCheck looks at none of them.
	Resolvers    []string
	SkipDNSCheck bool

	// Listener serves /health and /metrics; nil disables them.
	Listener net.Listener
	// Events is called for each event at once, from several goroutines.
	Events func(acme.Event)
}

// controller is one replica.
type controller struct {
	c       Config
	clock   acme.Clock
	store   *acme.Store
	manager *acme.Manager
	metrics *metrics

	stored chan struct{} // a certificate has been stored

	mu     sync.Mutex
	leader bool
	since  time.Time

	skipping sync.Mutex
	skipped  string // the last report about instances that do not count as the edge
}

// Run runs a replica until ctx ends, which is no error. It releases the lock then, so
// that another replica takes over at once.
func Run(ctx context.Context, config Config) error {
	c := &controller{c: config, clock: config.Clock, store: acme.NewStore(config.Backend), since: time.Now(), stored: make(chan struct{}, 1)}
	if c.clock == nil {
		c.clock = acme.SystemClock{}
	}
	if c.c.LookEvery == 0 {
		c.c.LookEvery = lookEvery
	}
	c.metrics = newMetrics(c)
	a := config.ACME
	a.Store, a.Clock, a.LockTTL, a.Events = c.store, c.clock, leaseTTL, c.event
	if config.Nomad != nil {
		a.FindSolver = DNSSolvers(dns.DesiredRecords{Client: config.Nomad}, config.Tenancy.DNS(config.namespace(), config.Getenv), config.Resolvers, config.SkipDNSCheck)
	}
	if config.Tenancy != nil {
		a.Permit = func(s acme.Spec) error { return config.Tenancy.Certificate(config.namespace(), s) }
	}
	a.Requests = func(r acme.Request) {
		c.metrics.request(r)
		if config.ACME.Requests != nil {
			config.ACME.Requests(r)
		}
	}
	c.manager = acme.NewManager(a)
	defer c.manager.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	if config.Listener != nil {
		srv := &http.Server{Handler: c.handler(), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute}
		wg.Go(func() {
			<-ctx.Done()
			_ = srv.Close()
		})
		wg.Go(func() {
			if err := srv.Serve(config.Listener); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving health and metrics: %w", err))
			}
		})
	}
	c.campaign(ctx)
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

// event passes an event to the metrics and to the Events function.
func (c *controller) event(e acme.Event) {
	switch e.Kind {
	case "issued":
		select {
		case c.stored <- struct{}{}:
		default:
		}
		fallthrough
	case "failed", "held", "temporary", "revoked":
		c.metrics.stale()
	}
	if c.c.Events != nil {
		c.c.Events(e)
	}
}

func (c *controller) say(kind, format string, args ...any) {
	c.event(acme.Event{Time: c.clock.Now().UTC().Truncate(time.Millisecond), Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// warn reports that some work failed, once for each different reason.
func (c *controller) warn(what string, last *string, err error) {
	text := ""
	if err != nil {
		text = what + ": " + err.Error()
		c.metrics.failed(what)
	}
	if text != *last && text != "" {
		c.say("warning", "%s", text)
	}
	*last = text
}

// wait is false when ctx is over before d is.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// campaign tries to be the leader, and is it, until ctx is over.
func (c *controller) campaign(ctx context.Context) {
	var last string
	for ctx.Err() == nil {
		lease, err := c.c.Backend.Lock(ctx, LeaderPath, leaseTTL)
		switch {
		case err == nil:
			last = ""
			c.lead(ctx, lease)
			continue
		case errors.Is(err, acme.ErrLocked):
			err = nil
		case ctx.Err() != nil:
			return
		}
		c.warn("leader", &last, err)
		if !wait(ctx, campaign) {
			return
		}
	}
}

var errLost = errors.New("the lock of the leader was lost")

// lead works for as long as the lease is held.
func (c *controller) lead(ctx context.Context, lease acme.Lease) {
	work, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	c.become(true)
	c.say("leader", "this replica works now")
	for _, f := range []func(context.Context){c.certificates, c.probes, c.records, c.orphans, c.drift, c.claims, c.observe, c.autoscale} {
		wg.Go(func() { f(work) })
	}
	lost := false
	select {
	case <-lease.Lost():
		lost = true
		cancel(errLost)
		c.become(false)
		c.say("standby", "%s: another replica goes on", errLost)
	case <-ctx.Done():
		cancel(context.Cause(ctx))
	}
	wg.Wait()
	cancel(nil)
	c.metrics.forget() // a report may have come since
	if lost {
		return // there is no lock to release
	}
	c.become(false)
	if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
		c.say("warning", "leader: %s", err)
	}
	c.say("standby", "this replica has released the lock")
}

func (c *controller) become(leader bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader, c.since = leader, time.Now()
	if !leader {
		c.metrics.forget()
	}
}

func (c *controller) state() (leader bool, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader, c.since
}

// certificates issues and renews certificates when they are due, and at once when an
// object changes: a command waits for a certificate that it has requested.
func (c *controller) certificates(ctx context.Context) {
	var (
		last    string
		changed = make(chan struct{}, 1)
		wg      sync.WaitGroup
	)
	defer wg.Wait()
	if c.c.Nomad != nil {
		wg.Go(func() { c.watchCertificates(ctx, changed) })
	}
	for {
		next, err := c.manager.ReconcileAll(ctx)
		if ctx.Err() != nil {
			return
		}
		// Failures of single certificates were reported as events.
		var store *acme.StoreError
		if !errors.As(err, &store) {
			c.metrics.done("certificates")
			err = nil
		}
		c.warn("certificates", &last, err)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-c.clock.After(min(max(next.Sub(c.clock.Now()), time.Second), lookAgain)):
		}
	}
}

// watchCertificates sends to changed when an object of a certificate was written, at
// most once in watchPause, and at its first look, for certificates may have looked
// before that. It is a blocking query (GET /v1/vars). Errors are not
// reported: certificates reads the same store, and does.
func (c *controller) watchCertificates(ctx context.Context, changed chan<- struct{}) {
	var (
		index uint64
		seen  map[string]uint64 // modify index by path; Nomad's index is that of all variables
	)
	for wait(ctx, watchPause) {
		list, meta, err := c.c.Nomad.Variables().PrefixList(acme.CertFolder+"/", (&api.QueryOptions{WaitIndex: index, WaitTime: c.c.LookEvery}).WithContext(ctx))
		if err != nil {
			index = 0
			continue
		}
		now := make(map[string]uint64, len(list))
		for _, v := range list {
			now[v.Path] = v.ModifyIndex
		}
		if !maps.Equal(seen, now) {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		if index = meta.LastIndex; meta.LastIndex < 1 {
			index = 1 // 0 would not block
		}
		seen = now
	}
}
