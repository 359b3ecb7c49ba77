package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/rollout"
)

// Collect reads from Nomad and Consul, and changes nothing in them. It records
// in Facts.Missing what it cannot read; only the end of ctx is an error.
func Collect(ctx context.Context, c nomad.Clients, n Needs) (*Facts, error) {
	k := &collector{ctx: ctx, Clients: c, needs: n, Facts: &Facts{At: time.Now(), Missing: map[string]error{}}}
	var wg sync.WaitGroup
	for key, look := range map[string]func() error{
		"servers": k.servers, "acl": k.acl, "scheduler": k.scheduler, "nodes": k.nodes, "keyring": k.keyring,
		"consul": k.consul, "placement": k.placement, "volumes": k.volumes, "jobs": k.jobs, "outside": k.outside, "routes": k.routes,
	} {
		wg.Go(func() { k.miss(key, look()) })
	}
	wg.Wait()
	return k.Facts, ctx.Err()
}

type collector struct {
	ctx context.Context
	nomad.Clients
	needs Needs

	mu sync.Mutex // guards the maps and slices that several goroutines fill
	*Facts
}

func (k *collector) q() *api.QueryOptions { return (&api.QueryOptions{}).WithContext(k.ctx) }

// miss records the reason why a fact could not be read.
func (k *collector) miss(key string, err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Missing[key] = plain(err)
}

// plain returns an error of an API without its URL and HTML.
func plain(err error) error {
	var consul capi.StatusError
	switch {
	case nomad.IsForbidden(err), errors.As(err, &consul) && consul.Code == http.StatusForbidden:
		return errors.New("the token may not look at it")
	case nomad.StatusCode(err) != 0:
		return fmt.Errorf("Nomad answers %d: %s", nomad.StatusCode(err), strings.Join(strings.Fields(nomad.Body(err)), " "))
	}
	return err
}

// servers: GET /v1/agent/members, /v1/agent/self, /v1/operator/autopilot/health.
func (k *collector) servers() error {
	var members struct{ Members []*api.AgentMember }
	if _, err := k.Nomad.Raw().Query("/v1/agent/members", &members, k.q()); err != nil {
		return err
	}
	for _, m := range members.Members {
		k.Servers = append(k.Servers, Server{Name: m.Name, Version: m.Tags["build"], Status: m.Status})
	}
	var self api.AgentSelf
	if _, err := k.Nomad.Raw().Query("/v1/agent/self", &self, k.q()); err != nil {
		return err
	}
	if providers, ok := self.Config["KEKProviders"].([]any); ok {
		for _, p := range providers {
			if m, ok := p.(map[string]any); ok && m["Provider"] != "aead" {
				k.ExternalKEK = true
			}
		}
	}
	health, _, err := k.Nomad.Operator().AutopilotServerHealth(k.q())
	if err == nil {
		k.Health = health
	}
	return nil // that takes operator:read, and an unhealthy server shows elsewhere too
}

// acl tries drover's operations in ways that change nothing: it plans a job
// that is never registered, and writes a variable with an index that cannot
// match (POST /v1/job/:id/plan, PUT /v1/var/:path?cas=).
func (k *collector) acl() error {
	self, _, err := k.Nomad.ACLTokens().Self(k.q())
	k.ACLs = err != nil || self.AccessorID != "acls-disabled"
	forbidden := func(err error) error {
		if nomad.IsForbidden(err) {
			return errors.New("permission denied")
		}
		return nil // refused for another reason, or done: it is allowed
	}
	job := api.NewServiceJob("drover-doctor", "drover-doctor", "", 50)
	job.AddTaskGroup(api.NewTaskGroup("g", 0).AddTask(api.NewTask("t", "raw_exec").SetConfig("command", "true")))
	_, _, planErr := k.Nomad.Jobs().Plan(job, false, (&api.WriteOptions{}).WithContext(k.ctx))
	_, _, listErr := k.Nomad.Jobs().List(k.q())
	folder := cmp.Or(k.needs.Variables, "drover/stacks/drover-doctor/default")
	_, _, readErr := k.Nomad.Variables().Peek(folder+"/doctor", k.q())
	// An index that no cluster has: the answer is a conflict, or a refusal.
	_, _, writeErr := k.Nomad.Variables().CheckedUpdate(&api.Variable{
		Path: folder + "/doctor", ModifyIndex: 1 << 62, Items: api.VariableItems{"never": "written"},
	}, (&api.WriteOptions{}).WithContext(k.ctx))
	_, _, nodeErr := k.Nomad.Nodes().List(k.q())
	ns := `namespace "default" { `
	k.Rights = []Right{
		{"list and read jobs", ns + `capabilities = ["list-jobs", "read-job"] }`, forbidden(listErr)},
		{"submit jobs", ns + `capabilities = ["submit-job"] }`, forbidden(planErr)},
		{"read variables below drover/stacks/", ns + `variables { path "drover/stacks/*" { capabilities = ["read", "list"] } } }`, forbidden(readErr)},
		{"write variables below drover/stacks/", ns + `variables { path "drover/stacks/*" { capabilities = ["write"] } } }`, forbidden(writeErr)},
		{"read nodes", `node { policy = "read" }`, forbidden(nodeErr)},
	}
	return nil
}

// scheduler: GET /v1/operator/scheduler/configuration.
func (k *collector) scheduler() error {
	s, _, err := k.Nomad.Operator().SchedulerGetConfiguration(k.q())
	if err == nil {
		k.Scheduler = s.SchedulerConfig
	}
	return err
}

// nodes: GET /v1/nodes, /v1/node/:id, /v1/node/:id/allocations and, for
// clock and disks, /v1/client/stats of each.
func (k *collector) nodes() error {
	list, _, err := k.Nomad.Nodes().List(k.q())
	if err != nil {
		return err
	}
	found := make([]Node, len(list))
	var wg sync.WaitGroup
	places := make(chan struct{}, 16)
	for i, stub := range list {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			found[i] = k.node(stub)
		})
	}
	wg.Wait()
	slices.SortFunc(found, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	k.mu.Lock()
	defer k.mu.Unlock()
	k.Nodes = found
	return nil
}

func (k *collector) node(stub *api.NodeListStub) Node {
	n := Node{ID: stub.ID, Name: stub.Name, Version: stub.Version, Datacenter: stub.Datacenter, Status: stub.Status, Eligibility: stub.SchedulingEligibility, Drivers: stub.Drivers}
	node, _, err := k.Nomad.Nodes().Info(stub.ID, k.q())
	if err != nil {
		k.miss("stats", err)
		return n
	}
	n.Volumes = node.HostVolumes
	n.Consul, n.Agent = node.Attributes["consul.version"], node.Attributes["unique.consul.name"]
	if n.Agent != "" {
		n.Agent += " of " + node.Attributes["consul.datacenter"]
	}
	if n.Status != api.NodeStatusReady {
		return n
	}
	if allocs, _, err := k.Nomad.Nodes().Allocations(stub.ID, k.q()); err == nil {
		for _, a := range allocs {
			if a.ClientStatus != api.AllocClientStatusRunning && a.ClientStatus != api.AllocClientStatusPending || a.AllocatedResources == nil {
				continue
			}
			for _, p := range a.AllocatedResources.Shared.Ports {
				n.Ports = append(n.Ports, p.Value)
			}
		}
	}
	var stats struct {
		api.HostStats
		Timestamp int64 // ns since 1970, by the node's clock, at most a second or so ago
	}
	began := time.Now()
	if _, err := k.Nomad.Raw().Query("/v1/client/stats?node_id="+stub.ID, &stats, k.q()); err != nil {
		k.miss("stats", err)
		return n
	}
	n.Disks, n.AllocDir = stats.DiskStats, stats.AllocDirStats
	if stats.Timestamp != 0 {
		took := time.Since(began)
		n.Skew, n.SkewKnown = time.Unix(0, stats.Timestamp).Sub(began.Add(took/2)), true
		n.Fuzz = took + 2*time.Second // the node's time is that of its last collection
	}
	return n
}

// keyring: GET /v1/operator/keyring/keys.
func (k *collector) keyring() error {
	keys, _, err := k.Nomad.Keyring().List(k.q())
	k.Keys = keys
	return err
}

// consul: GET /v1/agent/members, /v1/status/leader, /v1/catalog/service/nomad.
func (k *collector) consul() error {
	if k.Consul == nil {
		return nil
	}
	q := (&capi.QueryOptions{}).WithContext(k.ctx)
	var members []*capi.AgentMember
	if _, err := k.Consul.Raw().Query("/v1/agent/members", &members, q); err != nil {
		return err
	}
	versions := map[string]string{}
	for _, m := range members {
		if m.Status == 1 { // serf: alive
			v, _, _ := strings.Cut(m.Tags["build"], ":") // 1.20.6:deadbeef
			versions[m.Name] = v
		}
	}
	k.ConsulVersions = versions
	var leader string
	if _, err := k.Consul.Raw().Query("/v1/status/leader", &leader, q); err != nil {
		return err
	}
	k.ConsulLeader = leader
	services, _, err := k.Consul.Catalog().Service("nomad", "", q)
	k.ConsulNomad = err == nil && len(services) > 0
	return err
}

// placement asks for a plan of each job, without writing anything. (POST
// /v1/job/:id/plan)
func (k *collector) placement() error {
	k.Placements = map[string]string{}
	return k.each(k.needs.Jobs, func(j render.Job) error {
		w := (&api.WriteOptions{}).WithContext(k.ctx)
		if j.Job.Region != nil {
			w.Region = *j.Job.Region
		}
		if j.Job.Namespace != nil {
			w.Namespace = *j.Job.Namespace
		}
		plan, _, err := k.Nomad.Jobs().PlanOpts(j.Job, &api.PlanOptions{}, w)
		if err != nil {
			return fmt.Errorf("plan of %s: %w", j.Service, plain(err))
		}
		var why []string
		for _, group := range slices.Sorted(maps.Keys(plan.FailedTGAllocs)) {
			why = append(why, rollout.PlacementOf(group, plan.FailedTGAllocs[group]).String())
		}
		if len(why) > 0 {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.Placements[j.Service] = strings.Join(why, "; ")
		}
		return nil
	})
}

// each runs do for all jobs, a few at a time, and returns the first error.
func (k *collector) each(jobs []render.Job, do func(render.Job) error) error {
	errs := make([]error, len(jobs))
	places := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i, j := range jobs {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			errs[i] = do(j)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *collector) volumes() error {
	missing, err := rollout.MissingVolumes(k.ctx, k.Clients, k.needs.Jobs, k.needs.Volumes)
	if err != nil {
		return err
	}
	if k.Lost, err = rollout.LostVolumes(k.ctx, k.Clients, k.needs.Jobs); err != nil {
		return err
	}
	if k.CSI, err = rollout.CSIProblems(k.ctx, k.Clients, k.needs.Jobs); err != nil {
		return err
	}
	why := map[string][]string{}
	for _, m := range missing {
		why[m.Name] = append(why[m.Name], m.String())
	}
	for _, v := range rollout.AskedVolumes(k.needs.Jobs) {
		k.Volumes = append(k.Volumes, Volume{Name: v.Name, JobID: v.JobID, Source: v.Source, Missing: strings.Join(why[v.Name], "; ")})
	}
	slices.SortFunc(k.Volumes, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// mostJobs bounds how many running jobs are read for shutdown_delay.
const mostJobs = 500

// jobs: GET /v1/jobs, and /v1/job/:id of the running ones.
func (k *collector) jobs() error {
	list, _, err := k.Nomad.Jobs().List((&api.QueryOptions{Namespace: "*"}).WithContext(k.ctx))
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(j *api.JobListStub) bool {
		return j.Stop || j.ParentID != "" || j.Type != api.JobTypeService && j.Type != api.JobTypeSystem
	})
	if len(list) > mostJobs {
		list = list[:mostJobs]
	}
	jobs := make([]render.Job, len(list))
	for i, j := range list {
		jobs[i].Job = &api.Job{ID: &j.ID, Namespace: &j.Namespace}
	}
	err = k.each(jobs, func(j render.Job) error {
		job, _, err := k.Nomad.Jobs().Info(*j.Job.ID, (&api.QueryOptions{Namespace: *j.Job.Namespace}).WithContext(k.ctx))
		if err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.NoShutdownDelay = append(k.NoShutdownDelay, withoutDelay(job)...)
		return nil
	})
	slices.Sort(k.NoShutdownDelay)
	return err
}

// routes: GET /edge of each instance of the edge, /v1/namespaces, and the variable in
// which the controller publishes its decisions.
func (k *collector) routes() error {
	if k.Consul == nil {
		return nil
	}
	var err error
	k.Routes, err = edge.Finder{Nomad: k.Nomad, Consul: k.Consul, Namespace: os.Getenv(edge.NamespaceEnv)}.Review(k.ctx)
	return err
}

// outside resolves the names and connects to them, from this process.
func (k *collector) outside() error {
	found := make([]Reach, len(k.needs.Names))
	var wg sync.WaitGroup
	for i, name := range k.needs.Names {
		wg.Go(func() { found[i] = reachFrom(k.ctx, name) })
	}
	wg.Wait()
	k.Outside = found
	return nil
}

func reachFrom(ctx context.Context, name string) Reach {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r := Reach{Name: name, Ports: map[int]error{}}
	host, port := name, 443
	if h, p, err := net.SplitHostPort(name); err == nil {
		host = h
		if port, err = strconv.Atoi(p); err != nil {
			r.Err = err
			return r
		}
	}
	if r.Addresses, r.Err = net.DefaultResolver.LookupHost(ctx, host); r.Err != nil {
		return r
	}
	want := []int{port}
	if port == 443 {
		want = append(want, 80)
	}
	for _, p := range want {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(p)))
		if err == nil {
			_ = conn.Close()
		}
		r.Ports[p] = err
	}
	return r
}
