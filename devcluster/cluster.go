package devcluster

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Cluster is a cluster that exists; it may be running or not.
type Cluster struct {
	// AlreadyRunning is true if Up had nothing to start.
	AlreadyRunning bool

	l   *layout
	cut func() // cuts the lifeline, if there is one
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.l.Name }

// Dir is the directory that holds everything of the cluster.
func (c *Cluster) Dir() string { return c.l.dir }

// BinDir is the directory with programs for tasks (client meta drover_bin).
func (c *Cluster) BinDir() string { return c.l.path("bin") }

// DataDir is where tasks keep what outlives them (client meta drover_data).
func (c *Cluster) DataDir() string { return c.l.path("data") }

// NomadAddr is the URL of Nomad's HTTP API in the first region.
func (c *Cluster) NomadAddr() string { return c.Regions()[0].NomadAddr }

// ConsulAddr is the URL of Consul's HTTP API in the first region.
func (c *Cluster) ConsulAddr() string { return c.Regions()[0].ConsulAddr }

// ConsulDNS is host and port of Consul's DNS in the first region.
func (c *Cluster) ConsulDNS() string {
	for _, a := range c.l.agents() {
		if a.program == Consul && a.server {
			return a.addr + ":" + strconv.Itoa(c.l.Ports.ConsulDNS)
		}
	}
	return ""
}

// Loopback is an address that no other cluster uses, for tasks that listen on
// ports of their choice; with several clients it is the first one's.
func (c *Cluster) Loopback() string { return c.Regions()[0].Loopback }

// ACMEDirectory is the URL of the directory of Pebble, an ACME CA that checks
// names on the ports where the stack edge listens in the environment dev;
// empty without Options.ACME.
func (c *Cluster) ACMEDirectory() string {
	if !c.l.ACME {
		return ""
	}
	return c.l.pebble().httpAddr(c.l.Ports) + "/dir"
}

// ACMECA is the file with the CA that the HTTPS of ACMEDirectory is verified
// with; empty without Options.ACME.
func (c *Cluster) ACMECA() string {
	if !c.l.ACME {
		return ""
	}
	return c.l.path("acme", acmeAPICA)
}

// CA is the file with the root of the certificates that Pebble issues: another
// one whenever it is started. Empty without Options.ACME.
func (c *Cluster) CA() string {
	if !c.l.ACME {
		return ""
	}
	return c.l.path("acme", acmeCA)
}

// DNSServer is HOST:PORT of PowerDNS, the name server of DNSZone; empty without
// Options.DNS.
func (c *Cluster) DNSServer() string {
	if !c.l.DNS {
		return ""
	}
	return c.l.dnsServer()
}

// DNSAPI is the URL of the HTTP API of PowerDNS; empty without Options.DNS.
func (c *Cluster) DNSAPI() string {
	if !c.l.DNS {
		return ""
	}
	return c.l.powerdns().httpAddr(c.l.Ports)
}

// DNSKey is the key of DNSAPI.
func (c *Cluster) DNSKey() (string, error) {
	b, err := os.ReadFile(c.l.path("dns", dnsKeyFile))
	if err != nil {
		return "", fmt.Errorf("reading the key of PowerDNS: %w", err)
	}
	return string(b), nil
}

// Regions returns the addresses of each region.
func (c *Cluster) Regions() []Reach {
	var all []Reach
	for _, region := range c.l.Shape.Regions {
		r := Reach{Region: region}
		for _, a := range c.l.agents() {
			switch {
			case a.region != region:
			case a.program == Nomad && a.server && r.NomadAddr == "":
				r.NomadAddr = a.httpAddr(c.l.Ports)
			case a.program == Consul && a.server && r.ConsulAddr == "":
				r.ConsulAddr = a.httpAddr(c.l.Ports)
			case r.Loopback == "":
				r.Loopback = a.loopback
			}
		}
		all = append(all, r)
	}
	return all
}

// Env are the environment variables that make nomad, consul and drover talk
// to the given region of the cluster, the first one when empty.
func (c *Cluster) Env(region string) ([]string, error) {
	for _, r := range c.Regions() {
		if r.Region != region && region != "" {
			continue
		}
		domain := r.Loopback + ":9200" // oCIS itself
		if c.l.ACME {
			domain = fmt.Sprintf("%s:%d", r.Loopback, edgeHTTPS)
		}
		env := []string{
			"NOMAD_ADDR=" + r.NomadAddr, "CONSUL_HTTP_ADDR=" + r.ConsulAddr,
			// The environment dev of the shipped stacks needs the addresses on
			// which this cluster's jobs may listen.
			"NOMAD_VAR_mesh_address=" + r.Loopback, "NOMAD_VAR_domain=" + domain,
		}
		if c.l.Secure {
			env = append(env, c.l.secureEnv()...)
		}
		if c.l.ACME {
			env = append(env, "DROVER_ACME_DIRECTORY="+c.ACMEDirectory(), "DROVER_ACME_CA="+c.ACMECA(), "DROVER_ACME_TERMS=any", fmt.Sprintf("DROVER_ACME_HTTP_PORT=%d", edgeHTTP), "DROVER_DEV_CA="+c.CA())
		}
		if c.l.DNS {
			key, err := c.DNSKey()
			if err != nil {
				return nil, err
			}
			env = append(env, "DROVER_DEV_DNS="+c.DNSServer(), "PDNS_API_KEY="+key,
				"NOMAD_VAR_dns_server="+c.DNSAPI(), fmt.Sprintf("NOMAD_VAR_dns_resolvers=[%q]", c.DNSServer()), fmt.Sprintf("NOMAD_VAR_dns_zones=[%q]", DNSZone))
		}
		if len(c.l.Shape.Regions) > 1 {
			env = append(env, "NOMAD_REGION="+r.Region)
		}
		return env, nil
	}
	return nil, invalidf("the dev cluster has no region %q: it has %v", region, c.l.Shape.Regions)
}

// Agents lists the agents in the order in which they are started.
func (c *Cluster) Agents(ctx context.Context) []Agent { return c.Status(ctx).Agents }

// Status asks the supervisor what runs.
func (c *Cluster) Status(ctx context.Context) Status {
	st := Status{
		Name: c.Name(), Dir: c.Dir(), State: StateStopped,
		NomadAddr: c.NomadAddr(), ConsulAddr: c.ConsulAddr(), ConsulDNS: c.ConsulDNS(), Loopback: c.Loopback(),
		ACMEDirectory: c.ACMEDirectory(), DNSServer: c.DNSServer(), DNSAPI: c.DNSAPI(),
	}
	if len(c.l.Shape.Regions) > 1 {
		st.Regions = c.Regions()
	}
	sup, err := control{c.l.dir}.status(ctx)
	if err == nil {
		st.State, st.SupervisorPID = StateRunning, sup.PID
		if sup.Stopping {
			st.State = StateStopping
		}
	}
	for _, spec := range c.l.agents() {
		a := c.l.agent(spec)
		if p, ok := sup.Agents[a.Name]; ok {
			a.State, a.PID = p.State, p.PID
		}
		st.Agents = append(st.Agents, a)
	}
	return st
}

// Kill kills the named agent and returns when it is gone. Its tasks keep running.
func (c *Cluster) Kill(ctx context.Context, name string) error {
	return control{c.l.dir}.post(ctx, "/agent/"+name+"/kill")
}

// Stop pauses the named agent with SIGSTOP: it keeps its connections and says
// nothing more.
func (c *Cluster) Stop(ctx context.Context, name string) error {
	return control{c.l.dir}.post(ctx, "/agent/"+name+"/pause")
}

// Cont lets an agent go on that Stop paused.
func (c *Cluster) Cont(ctx context.Context, name string) error {
	return control{c.l.dir}.post(ctx, "/agent/"+name+"/continue")
}

// Restart stops the named agent if it runs, starts it and waits until it is
// ready. Its tasks keep running.
func (c *Cluster) Restart(ctx context.Context, name string) error {
	spec := c.l.named(name)
	if spec == nil {
		return fmt.Errorf("there is no agent %q", name)
	}
	ctl := control{c.l.dir}
	st, err := ctl.status(ctx)
	if err != nil {
		return err
	}
	if st.Agents[name].PID != 0 {
		if err := ctl.post(ctx, "/agent/"+name+"/stop"); err != nil {
			return err
		}
	}
	if err := ctl.post(ctx, "/agent/"+name+"/start"); err != nil {
		return err
	}
	return c.l.awaitReady(ctx, 2*time.Minute, []*agentSpec{spec})
}

// Down stops the cluster; with wipe it removes it.
func (c *Cluster) Down(ctx context.Context, wipe bool) error {
	err := Down(ctx, Options{Name: c.l.Name, Dir: c.l.dir}, wipe)
	if c.cut != nil {
		c.cut()
	}
	return err
}

// Leftovers lists processes of the cluster, and fails if something is mounted
// in its directory. Of a cluster that is down there are none.
func (c *Cluster) Leftovers() ([]Process, error) { return leftovers(c.l) }
