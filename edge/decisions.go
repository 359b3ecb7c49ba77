package edge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

const (
	// ledgerPath has the claims, for the controller alone.
	ledgerPath   = "drover/controller/claims"
	ledgerItem   = "claims"
	ledgerLayout = 1
)

// publishedPath has the decisions for one job of the edge, which may read its own
// variables without a policy.
func publishedPath(job string) string { return "nomad/jobs/" + job + "/edge" }

// Ledger keeps the claims on routes in a Nomad Variable.
type Ledger struct{ Client *api.Client }

// Load returns the stored claims; first is true if nothing was stored yet.
func (l Ledger) Load(ctx context.Context) (claims []Claim, first bool, err error) {
	v, err := variables.Read(ctx, l.Client, ledgerPath)
	if v == nil {
		return nil, err == nil, err
	}
	if err := variables.CheckLayout(v.Items[variables.LayoutItem], "the variable "+ledgerPath, ledgerLayout); err != nil {
		return nil, false, err
	}
	if err := variables.Unpack(v.Items[ledgerItem], &claims); err != nil {
		return nil, false, fmt.Errorf("the variable %s is not readable: %w", ledgerPath, err)
	}
	return claims, false, nil
}

// Save stores claims, if they differ from what is stored.
func (l Ledger) Save(ctx context.Context, claims []Claim) error {
	packed, err := variables.Pack(claims)
	if err != nil {
		return err
	}
	old, err := variables.Read(ctx, l.Client, ledgerPath)
	if err != nil {
		return err
	}
	_, err = variables.WriteChanged(ctx, l.Client, old, ledgerPath, map[string]string{variables.LayoutItem: strconv.Itoa(ledgerLayout), ledgerItem: packed})
	return err
}

// Publish writes a decision where the edge's jobs read it, and keeps what is in
// maintenance. A token that may not write there is an error that says what to do.
func (f Finder) Publish(ctx context.Context, jobs []string, p Published) error {
	for _, job := range jobs {
		err := f.publish(ctx, publishedPath(job), p)
		for attempt := 1; nomad.IsConflict(err) && attempt < 5; attempt++ { // maintenance began or ended
			err = f.publish(ctx, publishedPath(job), p)
		}
		if nomad.IsForbidden(err) {
			return fmt.Errorf("%w. Until the controller may write there, edges give a route that two services ask for to the first in the alphabet, and allow every namespace every host without a table. Run drover acl bootstrap again", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f Finder) publish(ctx context.Context, path string, p Published) error {
	old, err := variables.Read(ctx, f.client(), path)
	if err != nil {
		return err
	}
	items := map[string]string{variables.LayoutItem: strconv.Itoa(ledgerLayout)}
	maps.Copy(items, p)
	if old != nil {
		for item, services := range old.Items {
			if strings.HasPrefix(item, maintenanceItem) {
				items[item] = services
			}
		}
	}
	_, err = variables.WriteChanged(ctx, f.client(), old, path, items)
	return err
}

// published are the decisions that the jobs of the edge read now, by the job; nil for
// none.
func (f Finder) published(ctx context.Context) (map[string]Published, error) {
	if f.Nomad == nil {
		return nil, nil
	}
	jobs, err := f.jobs(ctx)
	if err != nil {
		return nil, err
	}
	var out map[string]Published
	for _, job := range jobs {
		v, err := variables.Read(ctx, f.client(), publishedPath(job))
		if nomad.IsForbidden(err) {
			return nil, fmt.Errorf("%w: the token may not read which routes the controller has refused", err)
		}
		if err != nil {
			return nil, err
		}
		if v == nil || v.Items[variables.LayoutItem] == "" { // it has what is in maintenance
			continue
		}
		delete(v.Items, variables.LayoutItem)
		if out == nil {
			out = map[string]Published{}
		}
		out[job] = Published(v.Items)
	}
	return out, nil
}

// client is that of the edge's namespace.
func (f Finder) client() *api.Client {
	if f.Namespace == "" {
		return f.Nomad
	}
	c := *f.Nomad
	c.SetNamespace(f.Namespace)
	return &c
}

// jobs are the IDs of the jobs that are the edge, sorted: of those with a live
// allocation.
func (f Finder) jobs(ctx context.Context) ([]string, error) {
	live, err := f.live(ctx)
	var out []string
	for _, job := range live {
		out = append(out, job)
	}
	slices.Sort(out)
	return slices.Compact(out), err
}

// Setting is what the edges of one class are, as far as decisions about routes depend on
// it.
type Setting struct {
	Kind     Kind
	Settings *Settings
	Jobs     []string // that run them
}

// Class returns the class of the edges, "" for that of services without a tag.
func (s *Setting) Class() string {
	if s.Settings.Class == s.Settings.DefaultClass {
		return ""
	}
	return s.Settings.Class
}

// Classes asks the instances of the edge what they are, and returns it by class. Of
// several edges of a class it has the settings of one, with the lists of users and the
// ports of all, and the table of one that has one. It returns nil if no instance runs.
func (f Finder) Classes(ctx context.Context) ([]*Setting, error) {
	live, err := f.live(ctx)
	if err != nil || len(live) == 0 {
		return nil, err
	}
	entries, _, err := f.passing(ctx)
	if err != nil {
		return nil, err
	}
	var out []*Setting
	var errs []error
	for _, e := range entries {
		said, metrics, err := readInstance(ctx, e, f.Credentials, askTimeout)
		if err != nil {
			errs = append(errs, fmt.Errorf("the edge at %s: %w", metrics, err))
			continue
		}
		this := &Setting{Kind: said.Edge, Settings: &said.Settings}
		i := slices.IndexFunc(out, func(s *Setting) bool { return s.Class() == this.Class() })
		if i < 0 {
			i, out = len(out), append(out, this)
		} else {
			s := out[i].Settings
			s.Users = append(s.Users, said.Users...)
			s.TCPPorts = append(s.TCPPorts, said.TCPPorts...)
			if len(said.Tenants) > 0 {
				s.Tenants = said.Tenants
			}
			if said.Edge == HAProxy { // it knows more tags
				out[i].Kind = HAProxy
			}
		}
		if job := live[alloc(e)]; !slices.Contains(out[i].Jobs, job) {
			out[i].Jobs = append(out[i].Jobs, job)
		}
	}
	if len(errs) > 0 { // one that does not answer may have a table
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// Review is what an operator should know about who has which route.
type Review struct {
	Running    bool // an edge
	Tenants    bool // it has a table of what namespaces may claim
	Decided    bool // a controller decides about routes
	Namespaces int  // that the token can see
	// Shared are the hosts of several namespaces without a table, each as "HOST
	// NAMESPACE NAMESPACE".
	Shared []string
	// Problems are tags that the controller refused, and services that no edge takes.
	Problems []Problem
}

// Review reads what the controller decided, and whether it had to.
func (f Finder) Review(ctx context.Context) (Review, error) {
	entries, _, err := f.Consul.Health().Service(ServiceName, "", true, (&capi.QueryOptions{}).WithContext(ctx))
	if err != nil || len(entries) == 0 {
		return Review{}, err
	}
	settings, err := f.Classes(ctx)
	if err != nil || len(settings) == 0 {
		return Review{}, err
	}
	r := Review{Running: true, Tenants: !slices.ContainsFunc(settings, func(s *Setting) bool { return len(s.Settings.Tenants) == 0 })}
	namespaces, _, err := f.Nomad.Namespaces().List((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return r, fmt.Errorf("listing namespaces: %w", err)
	}
	published, err := f.published(ctx)
	if err != nil {
		return r, err
	}
	services, _, err := f.Consul.Catalog().Services((&capi.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return r, fmt.Errorf("listing services: %w", err)
	}
	r.Namespaces, r.Decided = len(namespaces), published != nil
	var groups []*group
	for _, s := range settings {
		groups = append(groups, &group{settings: s.Settings})
	}
	r.Problems = notTaken(groups, services)
	for _, s := range settings {
		for _, job := range s.Jobs {
			p := published[job]
			if text := p[sharedItem]; text != "" {
				r.Shared = append(r.Shared, strings.Split(text, "\n")...)
			}
			left, problems := p.Filter(services)
			r.Problems = append(r.Problems, onlyTaken(s.Settings, left, problems)...)
		}
	}
	slices.Sort(r.Shared)
	r.Shared = slices.Compact(r.Shared)
	r.Problems = unique(r.Problems)
	return r, nil
}

// onlyTaken are the problems of services that an edge takes.
func onlyTaken(s *Settings, services map[string][]string, problems []Problem) []Problem {
	return slices.DeleteFunc(problems, func(p Problem) bool { return !s.Takes(services[p.Service]) })
}

// unique are problems without those that are there before.
func unique(problems []Problem) []Problem {
	var out []Problem
	for _, p := range problems {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
