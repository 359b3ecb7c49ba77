package ui

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/doctor"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// Source is what the pages show and do. Its methods may be called from several
// goroutines.
type Source interface {
	// Stacks lists every stack and environment with a release.
	Stacks(ctx context.Context) ([]record.ListedStack, error)
	Status(ctx context.Context, name, env string) (deploy.StatusResult, error)
	// Changed returns the jobs of all stacks that differ from the last release.
	Changed(ctx context.Context) ([]deploy.ChangedStack, error)
	History(ctx context.Context, name, env string) (deploy.HistoryResult, error)
	// Show returns a release; 0 is the newest.
	Show(ctx context.Context, name, env string, number int) (deploy.ShowResult, error)
	Diff(ctx context.Context, name, env string, from, to int) (deploy.DiffResult, error)
	Drift(ctx context.Context, name, env string) (deploy.DriftResult, error)
	Inspect(ctx context.Context, name, env, service, target string) (deploy.InspectResult, error)
	Certificates(ctx context.Context) ([]*acme.Object, error)
	Edge(ctx context.Context) (*edge.Report, error)
	// Requests returns what the instances of the edge have counted.
	Requests(ctx context.Context) (*edge.Scrape, error)
	// Records returns the DNS records that the controller keeps.
	Records(ctx context.Context) ([]*dns.Wanted, error)
	Schedules(ctx context.Context, name, env string) ([]*record.Schedule, error)
	Doctor(ctx context.Context) (doctor.Report, error)

	// Plan returns what a rollback or redeploy would change, and writes nothing.
	Plan(ctx context.Context, a Action) ([]release.Change, error)
	// Do carries out an action and reports its events.
	Do(ctx context.Context, a Action, events func(deploy.Event)) error
}

// Action is a verb that an operator starts from a page.
type Action struct {
	Verb               Verb
	Stack, Environment string
	To                 int      // of a rollback: the release
	Services           []string // of a redeploy; all when empty
	Message            string   // why, for the record
	Prune              bool     // the operator has seen which running jobs stop
}

// Verb is a verb of an Action.
type Verb string

// The verbs.
const (
	Approve  Verb = "approve"
	Resume   Verb = "resume"
	Promote  Verb = "promote"
	Abort    Verb = "abort"
	Pause    Verb = "pause"
	Rollback Verb = "rollback"
	Redeploy Verb = "redeploy"
)

// logLines is the number of lines of each task and stream that a page shows.
const logLines = 40

// Cluster is the Source of a cluster: it calls the verbs of package deploy.
type Cluster struct {
	// Home makes changes, and Reading only reads; see deploy.Status. Both are used with
	// ByName: a path in a URL must not lead to a file.
	Home, Reading deploy.Home
	// Edge are the options by which the edge is read; its Store is set by Cluster.
	EdgeOptions edge.Options

	mu    sync.Mutex
	reads map[string]*statusReader
}

// statusReader is a deploy.Status, which keeps the job specs that it has read.
type statusReader struct {
	mu   sync.Mutex
	verb deploy.Status
}

var _ Source = (*Cluster)(nil)

func (c *Cluster) reading() deploy.Home {
	home := c.Reading
	home.ByName = true
	return home
}

// Stacks implements Source.
func (c *Cluster) Stacks(ctx context.Context) ([]record.ListedStack, error) {
	return deploy.List{Home: c.reading()}.Run(ctx)
}

// Status implements Source.
func (c *Cluster) Status(ctx context.Context, name, env string) (deploy.StatusResult, error) {
	c.mu.Lock()
	if c.reads == nil {
		c.reads = map[string]*statusReader{}
	}
	r := c.reads[key(name, env)]
	if r == nil {
		r = &statusReader{verb: deploy.Status{Home: c.reading(), Source: source(name, env)}}
		c.reads[key(name, env)] = r
	}
	c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.verb.Run(ctx)
}

func source(name, env string) deploy.Source { return deploy.Source{Path: name, Environment: env} }

// Changed implements Source.
func (c *Cluster) Changed(ctx context.Context) ([]deploy.ChangedStack, error) {
	return deploy.ChangedJobs{Home: c.reading()}.Run(ctx)
}

// History implements Source.
func (c *Cluster) History(ctx context.Context, name, env string) (deploy.HistoryResult, error) {
	return deploy.History{Home: c.reading(), Stack: name, Environment: env}.Run(ctx)
}

// Show implements Source.
func (c *Cluster) Show(ctx context.Context, name, env string, number int) (deploy.ShowResult, error) {
	return deploy.Show{Home: c.reading(), Stack: name, Environment: env, Release: number}.Run(ctx)
}

// Diff implements Source.
func (c *Cluster) Diff(ctx context.Context, name, env string, from, to int) (deploy.DiffResult, error) {
	return deploy.Diff{Home: c.reading(), Stack: name, Environment: env, From: from, To: to}.Run(ctx)
}

// Drift implements Source.
func (c *Cluster) Drift(ctx context.Context, name, env string) (deploy.DriftResult, error) {
	return deploy.Drift{Home: c.reading(), Stack: name, Environment: env}.Run(ctx)
}

// Inspect implements Source.
func (c *Cluster) Inspect(ctx context.Context, name, env, service, target string) (deploy.InspectResult, error) {
	s := source(name, env)
	if target != "" {
		s.Targets = []string{target}
	}
	return deploy.Inspect{Home: c.reading(), Source: s, Service: service, Lines: logLines}.Run(ctx)
}

// Certificates implements Source.
func (c *Cluster) Certificates(ctx context.Context) ([]*acme.Object, error) {
	clients, err := c.Reading.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	return acme.NewStore(acme.NomadVariables(clients.Nomad)).List(ctx)
}

// Edge implements Source.
func (c *Cluster) Edge(ctx context.Context) (*edge.Report, error) {
	clients, err := c.Reading.Connect(ctx, true)
	if err != nil {
		return nil, err
	}
	if clients.Consul == nil {
		return nil, errors.New("routes are requested by tags in Consul, and no Consul is known")
	}
	o := c.EdgeOptions
	o.Store = acme.NewStore(acme.NomadVariables(clients.Nomad))
	return edge.Look(ctx, clients.Nomad, clients.Consul, o)
}

// Requests implements Source.
func (c *Cluster) Requests(ctx context.Context) (*edge.Scrape, error) {
	clients, err := c.Reading.Connect(ctx, true)
	if err != nil {
		return nil, err
	}
	if clients.Consul == nil {
		return nil, errors.New("no Consul is known")
	}
	o := c.EdgeOptions
	at, err := edge.Finder{Nomad: clients.Nomad, Consul: clients.Consul, Namespace: o.Namespace}.Exporters(ctx)
	if err != nil {
		return nil, err
	}
	return edge.ScrapeMetrics(ctx, &http.Client{Timeout: o.Timeout}, at, o.Credentials, time.Now())
}

// Records implements Source.
func (c *Cluster) Records(ctx context.Context) ([]*dns.Wanted, error) {
	clients, err := c.Reading.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	list, _, err := dns.DesiredRecords{Client: clients.Nomad}.List(ctx, 0, 0)
	return list, err
}

// Schedules implements Source.
func (c *Cluster) Schedules(ctx context.Context, name, env string) ([]*record.Schedule, error) {
	clients, err := c.Reading.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	return record.OpenSchedules(clients.Nomad, name, deploy.EnvironmentName(env)).List(ctx)
}

// Doctor implements Source.
func (c *Cluster) Doctor(ctx context.Context) (doctor.Report, error) {
	clients, err := c.Reading.Connect(ctx, true)
	if err != nil {
		return doctor.Report{}, err
	}
	facts, err := doctor.Collect(ctx, clients, doctor.Needs{})
	if err != nil {
		return doctor.Report{}, err
	}
	return doctor.Examine(facts, doctor.Needs{}), nil
}

// recorded names the stack of an action. The record says which action of the page it was.
func (c *Cluster) recorded(a Action, events func(deploy.Event)) deploy.Recorded {
	home := c.Home
	home.ByName = true
	home.Holder.Command += " (" + string(a.Verb) + ")"
	return deploy.Recorded{Home: home, Stack: a.Stack, Environment: a.Environment, Events: events}
}

// Plan implements Source.
func (c *Cluster) Plan(ctx context.Context, a Action) ([]release.Change, error) {
	var (
		plan *release.Plan
		err  error
	)
	switch r := c.recorded(a, nil); a.Verb {
	case Rollback:
		plan, err = (&deploy.Rollback{Recorded: r, To: a.To}).Plan(ctx)
	case Redeploy:
		plan, err = (&deploy.Redeploy{Recorded: r, Services: a.Services}).Plan(ctx)
	default:
		return nil, errors.New(string(a.Verb) + " has no plan")
	}
	if err != nil {
		return nil, err
	}
	return plan.Changes(), nil
}

// Do implements Source.
func (c *Cluster) Do(ctx context.Context, a Action, events func(deploy.Event)) error {
	r, n := c.recorded(a, events), deploy.NewRelease{Message: a.Message, Prune: a.Prune}
	var err error
	switch a.Verb {
	case Approve:
		_, err = (&deploy.Approve{Recorded: r}).Run(ctx)
	case Resume, Promote:
		_, err = (&deploy.Resume{Recorded: r, Promote: a.Verb == Promote}).Run(ctx)
	case Abort:
		_, err = (&deploy.Abort{Recorded: r}).Run(ctx)
	case Pause:
		_, err = (&deploy.Pause{Home: r.Home, Stack: a.Stack, Environment: a.Environment}).Run(ctx)
	case Rollback:
		_, err = (&deploy.Rollback{Recorded: r, New: n, To: a.To}).Run(ctx)
	case Redeploy:
		_, err = (&deploy.Redeploy{Recorded: r, New: n, Services: a.Services}).Run(ctx)
	default:
		err = errors.New("unknown action " + string(a.Verb))
	}
	return err
}
