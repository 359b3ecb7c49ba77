package nomad

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/stack"
)

// Clients are those of the servers of one target.
type Clients struct {
	Nomad *api.Client
	// Consul may be nil if no job registers a service there.
	Consul *capi.Client
	// Defaults are the region and namespace of jobs that name none.
	Defaults Defaults
	// Target is the target that the clients reach. It is nil if they were not made by
	// Dial or Reach.
	Target *stack.Target
	// ConsulDatacenters are those in which the services of the target may be. It is
	// empty for the datacenter of the Consul that answers.
	ConsulDatacenters []string
}

// Dialer makes the clients of targets. Those that reach the same address with the same
// certificates share their connections, of which a server allows only so many. A server
// is checked once for each token, and again only if the check has failed: a process that
// runs for long uses a new Dialer for each run of a verb. The zero Dialer is ready for
// use, by several goroutines at once.
type Dialer struct {
	// Home returns a new configuration for the cluster of the process, which the
	// targets without a cluster of their own are in. Nil means the NOMAD_* variables.
	Home func() *api.Config

	mu     sync.Mutex
	made   map[string]*http.Client // by address and certificates
	checks checks
}

// Dial returns the clients of a target. It returns a *ClusterError if a server does not
// answer, refuses the token or has a version that drover does not support. It reaches a
// target without a cluster of its own through NOMAD_ADDR and CONSUL_HTTP_ADDR, whose
// servers forward requests to the region and the Consul datacenter of the target.
func (d *Dialer) Dial(ctx context.Context, t *stack.Target, needConsul bool) (Clients, error) {
	return d.dial(ctx, t, needConsul, true)
}

// Reach is Dial for callers that only read: it does not check versions and tokens.
func (d *Dialer) Reach(ctx context.Context, t *stack.Target, needConsul bool) (Clients, error) {
	return d.dial(ctx, t, needConsul, false)
}

// Dial is that of a new Dialer.
func Dial(ctx context.Context, t *stack.Target, needConsul bool) (Clients, error) {
	return (&Dialer{}).Dial(ctx, t, needConsul)
}

// Reach is that of a new Dialer.
func Reach(ctx context.Context, t *stack.Target, needConsul bool) (Clients, error) {
	return (&Dialer{}).Reach(ctx, t, needConsul)
}

func (d *Dialer) dial(ctx context.Context, t *stack.Target, needConsul, preflight bool) (Clients, error) {
	c := Clients{Target: t}
	home := d.Home
	if home == nil {
		home = api.DefaultConfig
	}
	nc, err := nomadConfig(home(), t)
	if err != nil {
		return c, dialError("Nomad", t, err)
	}
	agent := []any{nc.Address, nc.TLSConfig, nc.SecretID, nc.HttpAuth, nc.Headers}
	if c.Nomad, err = d.newClient(nc); err != nil {
		return c, dialError("Nomad", t, err)
	}
	ctx, cancel := WithTimeout(ctx, 10*time.Second, errors.New("no answer within 10 seconds"))
	defer cancel()
	c.Defaults = defaultsOf(t)
	if preflight {
		region, err := once(ctx, &d.checks, func() (string, error) { return preflightNomad(ctx, c.Nomad) }, "Nomad", agent)
		if err != nil {
			return c, inTarget(t, err)
		}
		c.Defaults.Region = cmp.Or(c.Defaults.Region, region)
	}
	if t.Region != "" {
		if _, err := once(ctx, &d.checks, func() (string, error) { return "", reachRegion(ctx, c.Nomad, t.Region) }, "region", agent, t.Region); err != nil {
			return c, inTarget(t, err)
		}
	}
	if preflight && c.Defaults.Region == "" {
		if c.Defaults.Region, err = once(ctx, &d.checks, func() (string, error) { return onlyRegion(ctx, c.Nomad) }, "regions", agent); err != nil {
			return c, inTarget(t, c.Explain(err))
		}
	}
	if !needConsul {
		return c, nil
	}
	cc, err := consulConfig(t)
	if err != nil {
		return c, dialError("Consul", t, err)
	}
	if t.Name != "" { // else the addresses of the process decide
		if cc.Datacenter = t.ConsulDatacenter; cc.Datacenter == "" {
			if c.ConsulDatacenters, err = d.consulDatacenters(ctx, c.Nomad, agent, t); err != nil {
				return c, inTarget(t, c.Explain(err))
			}
		}
		if len(c.ConsulDatacenters) > 0 {
			cc.Datacenter = c.ConsulDatacenters[0]
		}
	}
	if c.Consul, err = capi.NewClient(cc); err != nil {
		return c, dialError("Consul", t, err)
	}
	if preflight {
		_, err := once(ctx, &d.checks, func() (string, error) { return "", preflightConsul(ctx, c.Consul) }, "Consul", cc.Address, cc.Token, cc.TokenFile, cc.TLSConfig, cc.HttpAuth)
		if err != nil {
			return c, inTarget(t, err)
		}
	}
	if t.Name == "" {
		// One request in the common case: Consul knows no other datacenter. A Consul
		// that does not answer fails the first request for services.
		var known []string
		_, err := c.Consul.Raw().Query("/v1/catalog/datacenters", &known, (&capi.QueryOptions{}).WithContext(ctx))
		if err == nil && len(known) > 1 {
			if c.ConsulDatacenters, err = d.consulDatacenters(ctx, c.Nomad, agent, t); err != nil {
				return c, c.Explain(err)
			}
		}
	}
	return c, nil
}

// defaultsOf returns the region and namespace of jobs of a target that name
// none, as far as they are known without a request.
func defaultsOf(t *stack.Target) Defaults {
	if t.Cluster != nil {
		return Defaults{Region: t.Region}
	}
	c := api.DefaultConfig()
	return Defaults{Region: cmp.Or(t.Region, c.Region), Namespace: c.Namespace}
}

// onlyRegion returns the region of a cluster that has only one, otherwise ""
// (GET /v1/regions, which needs no token).
func onlyRegion(ctx context.Context, client *api.Client) (string, error) {
	var regions []string
	if _, err := client.Raw().Query("/v1/regions", &regions, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return "", fmt.Errorf("listing the regions: %w", err)
	}
	if len(regions) != 1 {
		return "", nil
	}
	return regions[0], nil
}

// reachRegion finds out whether requests for a region arrive
// (GET /v1/status/leader?region=, which needs no token).
func reachRegion(ctx context.Context, client *api.Client, region string) error {
	var leader string
	_, err := client.Raw().Query("/v1/status/leader", &leader, (&api.QueryOptions{Region: region}).WithContext(ctx))
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if StatusCode(err) == 0 {
		return nomadError(&ClusterError{System: "Nomad", Address: client.Address(), Err: err})
	}
	return &ClusterError{
		System: "Nomad", Address: client.Address(), Problem: fmt.Sprintf("does not reach region %q", region), Err: Plain(err),
		Hint: "look at `nomad server members` and at the region of the target",
	}
}

// inTarget returns err with the name of the target.
func inTarget(t *stack.Target, err error) error {
	if err == nil || t.Name == "" {
		return err
	}
	var cluster *ClusterError
	if !errors.As(err, &cluster) {
		return fmt.Errorf("target %s: %w", t.Name, err)
	}
	cluster.Target = t.Name
	if t.Cluster == nil {
		return err
	}
	// The environment variables of the process do not apply to this cluster.
	cluster.Hint = fmt.Sprintf("look at its server, and at address, token and certificates of cluster %q in the environment", t.Cluster.Name)
	if cluster.System == "Consul" && t.Cluster.Consul != nil {
		cluster.Address = t.Cluster.Consul.Address
	}
	return err
}

// Explain returns err, the error of a request of these clients. If the cluster caused it,
// Explain returns a *ClusterError with the address of the target.
func (c Clients) Explain(err error) error {
	if c.Target == nil {
		return err
	}
	if cluster, ok := AsClusterError(err, c.Nomad.Address()); ok {
		return inTarget(c.Target, cluster)
	}
	return err
}

func dialError(system string, t *stack.Target, err error) error {
	address, hint := api.DefaultConfig().Address, "look at the NOMAD_* environment variables"
	if system == "Consul" {
		address, hint = capi.DefaultConfig().Address, "look at the CONSUL_* environment variables"
	}
	if t.Cluster != nil {
		address, hint = t.Cluster.Address, "look at the block cluster "+fmt.Sprintf("%q", t.Cluster.Name)
		if system == "Consul" && t.Cluster.Consul != nil {
			address = t.Cluster.Consul.Address
		}
	}
	return &ClusterError{System: system, Target: t.Name, Address: address, Problem: "cannot be asked", Err: err, Hint: hint}
}

func nomadConfig(home *api.Config, t *stack.Target) (*api.Config, error) {
	if t.Cluster == nil {
		if t.Region != "" {
			home.Region = t.Region
		}
		return home, nil
	}
	token, err := readToken(t.Cluster.Access)
	if err != nil {
		return nil, err
	}
	a := t.Cluster.Access
	return &api.Config{
		Address: a.Address, Region: t.Region, SecretID: token,
		TLSConfig: &api.TLSConfig{CACert: a.CACert, ClientCert: a.ClientCert, ClientKey: a.ClientKey, TLSServerName: a.TLSServerName},
	}, nil
}

func consulConfig(t *stack.Target) (*capi.Config, error) {
	if t.Cluster == nil || t.Cluster.Consul == nil {
		return capi.DefaultConfig(), nil
	}
	a := *t.Cluster.Consul
	token, err := readToken(a)
	if err != nil {
		return nil, err
	}
	return &capi.Config{
		Address: a.Address, Token: token,
		TLSConfig: capi.TLSConfig{CAFile: a.CACert, CertFile: a.ClientCert, KeyFile: a.ClientKey, Address: a.TLSServerName},
	}, nil
}

// readToken finds the token that an Access names, "" when it names none.
func readToken(a stack.Access) (string, error) {
	switch {
	case a.TokenEnv != "":
		token := os.Getenv(a.TokenEnv)
		if token == "" {
			return "", fmt.Errorf("the environment variable %s, which should hold its token, is empty", a.TokenEnv)
		}
		return token, nil
	case a.TokenFile != "":
		text, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return "", fmt.Errorf("reading its token: %w", err)
		}
		if token := strings.TrimSpace(string(text)); token != "" {
			return token, nil
		}
		return "", fmt.Errorf("the file %s, which should hold its token, is empty", a.TokenFile)
	}
	return "", nil
}

// consulDatacenters returns the Consul datacenters in which the Nomad clients of the
// target are, sorted. It is empty if there is no client yet or the token may not look at
// nodes: the Consul that is asked then answers for its own datacenter. All targets of a
// region share the requests. agent is the identity of the server and its token.
func (d *Dialer) consulDatacenters(ctx context.Context, client *api.Client, agent []any, t *stack.Target) ([]string, error) {
	all := len(t.Datacenters) == 0
	found, err := once(ctx, &d.checks, func() (map[string][]string, error) {
		return findConsulDatacenters(ctx, client, t.Region, all)
	}, "Consul datacenters", agent, t.Region, all)
	if err != nil {
		return nil, err
	}
	var out []string
	for datacenter, consul := range found {
		if all || matchesAny(datacenter, t.Datacenters) {
			out = append(out, consul...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// findConsulDatacenters returns the Consul datacenters of the clients in a region by
// their Nomad datacenter (GET /v1/nodes and, for each Consul datacenter, GET
// /v1/node/:id). With sample, one client stands for all in its Consul datacenter:
// the answers are short, and Nomad datacenters may be missing.
func findConsulDatacenters(ctx context.Context, client *api.Client, region string, sample bool) (map[string][]string, error) {
	const attribute = `"/Attributes/consul.datacenter"`
	filter := `Status == "ready" and ` + attribute + ` is not empty`
	list := func() ([]*api.NodeListStub, error) {
		q := &api.QueryOptions{Region: region, Filter: filter}
		if sample {
			q.PerPage = 1
		}
		nodes, _, err := client.Nodes().List(q.WithContext(ctx))
		return nodes, err
	}
	out := map[string][]string{}
	var known []string
	nodes, err := list()
	for err == nil && len(nodes) > 0 {
		var node *api.Node
		node, _, err = client.Nodes().Info(nodes[0].ID, (&api.QueryOptions{Region: region}).WithContext(ctx))
		if IsNotFound(err) { // removed since it was listed
			nodes, err = list()
			continue
		}
		if err != nil {
			return nil, unlessForbidden(err, "reading node "+nodes[0].Name)
		}
		dc := node.Attributes["consul.datacenter"]
		if dc == "" || slices.Contains(known, dc) {
			return out, nil // the node has changed meanwhile
		}
		known = append(known, dc)
		filter += fmt.Sprintf(" and %s != %q", attribute, dc)
		var others []*api.NodeListStub
		if others, err = list(); err != nil {
			break
		}
		elsewhere := map[string]bool{}
		for _, n := range others {
			elsewhere[n.ID] = true
		}
		for _, n := range nodes {
			if !elsewhere[n.ID] && !slices.Contains(out[n.Datacenter], dc) {
				out[n.Datacenter] = append(out[n.Datacenter], dc)
			}
		}
		nodes = others
	}
	if err != nil {
		return nil, unlessForbidden(err, "listing the nodes")
	}
	return out, nil
}

func unlessForbidden(err error, doing string) error {
	if IsForbidden(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// InDatacenters reports whether the datacenter of a node matches one of the patterns, in
// which * stands for any characters, as in the datacenters of a job.
func InDatacenters(n *api.NodeListStub, patterns []string) bool {
	return matchesAny(n.Datacenter, patterns)
}

func matchesAny(datacenter string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, datacenter)
		return err == nil && ok
	})
}
