package controller_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/secrets"
)

// world is a Nomad namespace with a store of its own, what an edge does in
// it, and a CA that checks names there.
type world struct {
	cluster *devcluster.Cluster
	nomad   *api.Client
	consul  *capi.Client
	store   *acme.Store
	ca      *acmetest.CA
	edge    string // HOST:PORT that serves certificate c, as last read
	s       settings
}

func newWorld(t *testing.T, cluster *devcluster.Cluster, namespace string) *world {
	t.Helper()
	w := &world{cluster: cluster}
	nc := api.DefaultConfig()
	nc.Address = cluster.NomadAddr()
	var err error
	if w.nomad, err = api.NewClient(nc); err != nil {
		t.Fatal(err)
	}
	cc := capi.DefaultConfig()
	cc.Address = cluster.ConsulAddr()
	if w.consul, err = capi.NewClient(cc); err != nil {
		t.Fatal(err)
	}
	if namespace != "" {
		if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: namespace}, nil); err != nil {
			t.Fatal(err)
		}
		w.nomad.SetNamespace(namespace)
	}
	w.store = acme.NewStore(acme.NomadVariables(w.nomad))

	answers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(stop)
	go func() { _ = acme.Respond(ctx, answers, acme.Responder{Thumbprint: w.store.Thumbprint}) }()
	w.ca = acmetest.Start(t, acmetest.Options{HTTPPort: answers.Addr().(*net.TCPAddr).Port})
	w.edge = serve(t, w.store)
	w.s = settings{Nomad: cluster.NomadAddr(), Namespace: namespace, Directory: w.ca.Directory, CA: w.ca.Root, Listen: "127.0.0.1:0"}
	return w
}

// serve serves certificate c of the store. If the store cannot be read it keeps
// the certificate that it has, as a proxy does.
func serve(t *testing.T, store *acme.Store) string {
	t.Helper()
	have := make(chan *tls.Certificate, 1)
	have <- nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		ctx, cancel := context.WithTimeout(h.Context(), time.Second)
		defer cancel()
		last := <-have
		o, err := store.Get(ctx, "c")
		if err == nil {
			pair, perr := tls.X509KeyPair([]byte(o.Chain), []byte(o.Key.Reveal()))
			if err = perr; err == nil {
				last = &pair
			}
		}
		have <- last
		if last == nil {
			return nil, err
		}
		return last, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 20 * time.Second}
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return l.Addr().String()
}

func (w *world) where(context.Context) ([]edge.Place, error) {
	return []edge.Place{{Address: w.edge}}, nil
}

// public is where the edge is for clients.
func (w *world) public(context.Context) ([]string, []error, error) {
	return []string{"198.51.100.7"}, nil, nil
}

// want stores what certificate c is to be.
func (w *world) want(t *testing.T, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = []string{"c.example.com"}
	}
	m := acme.NewManager(acme.Config{
		Store: w.store, DefaultIssuer: "pebble",
		Issuers: []acme.Issuer{{Name: "pebble", Directory: w.ca.Directory, CA: w.ca.Root, AcceptTerms: []string{acme.AnyTerms}}},
	})
	defer m.Close()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "c", Names: names}); err != nil {
		t.Fatal(err)
	}
}

// replica is one in this process, with the edge to look at.
func (w *world) replica(t *testing.T, change ...func(*controller.Config)) (said *log, address string, stop func()) {
	t.Helper()
	c, err := w.s.config(0)
	if err != nil {
		t.Fatal(err)
	}
	said = newLog()
	c.Events, c.Edge = said.add, w.where
	for _, f := range change {
		f(&c)
	}
	return said, c.Listener.Addr().String(), run(t, c)
}

func (w *world) object(t *testing.T) *acme.Object {
	t.Helper()
	o, err := w.store.Get(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// served is the serial number on the wire.
func (w *world) served(t *testing.T) string {
	t.Helper()
	chain, err := acme.Dial(t.Context(), w.edge, "c.example.com", 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return acme.Serial(chain[0])
}

// TestControllerFaults runs against one cluster, each case in a namespace of
// its own.
func TestControllerFaults(t *testing.T) {
	t.Parallel()
	cluster := devtest.Cluster(t, devcluster.Options{})
	for _, at := range []string{"issuing", "registered", "ordered", "issued"} {
		t.Run("killed at "+at, func(t *testing.T) {
			t.Parallel()
			killedAt(t, newWorld(t, cluster, at), at)
		})
	}
	t.Run("store full", func(t *testing.T) {
		t.Parallel()
		storeFull(t, newWorld(t, cluster, "full"))
	})
	t.Run("certificate locked", func(t *testing.T) {
		t.Parallel()
		certificateLocked(t, newWorld(t, cluster, "locked"))
	})
	t.Run("foreign certificate", func(t *testing.T) {
		t.Parallel()
		foreignCertificate(t, newWorld(t, cluster, "foreign"))
	})
	t.Run("drift", func(t *testing.T) {
		t.Parallel()
		drift(t, newWorld(t, cluster, "drift"))
	})
	t.Run("orphans", func(t *testing.T) {
		t.Parallel()
		orphans(t, newWorld(t, cluster, "orphans"))
	})
}

// killedAt: the leader is killed just after an event: before the first request to
// the CA, with an account but no order, between order and store, and with a stored
// certificate that is not yet checked for being served. The other replica
// continues with the one order that exists.
func killedAt(t *testing.T, w *world, at string) {
	w.want(t)
	s := w.s
	s.DieAt = at
	first, _, gone := process(t, s)
	first.until(t, "leader")
	other, _, _ := w.replica(t)
	within(t, gone, patience)
	died := time.Now()
	if first.count(at) != 1 {
		t.Fatalf("it did not die at %q:\n%s", at, first)
	}
	other.until(t, "served")
	if over := time.Since(died); over > 40*time.Second {
		t.Errorf("taken over after %s", over)
	} else {
		t.Logf("killed at %q: served %s later", at, over.Truncate(100*time.Millisecond))
	}
	o := w.object(t)
	if o.Status.Phase != acme.Ready || o.Status.Serial != w.served(t) {
		t.Errorf("%s with serial %s; served is %s", o.Status.Phase, o.Status.Serial, w.served(t))
	}
	if n := strings.Count(w.ca.Log(), "Issued certificate serial"); n != 1 {
		t.Errorf("the CA issued %d certificates", n)
	}
	if n := first.count("ordered") + other.count("ordered"); n != 1 {
		t.Errorf("%d orders\n%s%s", n, first, other)
	}
	if n := first.count("failed") + other.count("failed"); n != 0 {
		t.Errorf("failures are counted:\n%s%s", first, other)
	}
}

// storeFull: the certificate does not fit into a Nomad Variable. The old one is
// still served, the CA gets no further orders, and fewer names solve it.
func storeFull(t *testing.T, w *world) {
	w.want(t)
	said, address, stop := w.replica(t)
	said.until(t, "served")
	before := w.served(t)

	names := []string{"c.example.com"}
	long := strings.Repeat("."+strings.Repeat("x", 58), 3)
	for i := range 99 {
		names = append(names, fmt.Sprintf("n%d%s.example.com", i, long))
	}
	w.want(t, names...)
	said.untilText(t, "certificates: cannot store certificate c; the CA still has it and drover will fetch it again: Nomad Variables: writing drover/certs/c: ")
	if got := w.served(t); got != before {
		t.Errorf("served is %s instead of %s", got, before)
	}
	has(t, get(t, address, "/metrics"), `drover_controller_errors_total{work="certificates"} 1`)
	if n := said.count("ordered"); n != 2 {
		t.Errorf("%d orders\n%s", n, said)
	}
	// The next attempt is a minute away, or a restart.
	stop()
	w.want(t, "c.example.com", "d.example.com")
	said, _, _ = w.replica(t)
	said.until(t, "served")
	if w.served(t) == before || said.count("ordered") != 1 {
		t.Errorf("served is still %s\n%s", before, said)
	}
}

// certificateLocked: another live process holds the lock of the certificate.
func certificateLocked(t *testing.T, w *world) {
	w.want(t)
	lease, err := acme.NomadVariables(w.nomad).Lock(t.Context(), "drover/acme/locks/c", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	said, _, _ := w.replica(t)
	said.untilText(t, "its lock drover/acme/locks/c is held since ")
	if o := w.object(t); said.count("issuing") != 0 || o.Status.Attempts != 0 {
		t.Errorf("%+v\n%s", o.Status, said)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	said.until(t, "served")
}

// foreignCertificate: another program overwrites the certificate in the store. It
// is served until the controller notices and replaces it.
func foreignCertificate(t *testing.T, w *world) {
	w.want(t)
	said, _, stop := w.replica(t)
	said.until(t, "served")
	stop()
	chain, key, err := acme.SelfSigned([]string{"somebody.example.org"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Update(t.Context(), "c", func(o *acme.Object) error {
		o.Chain, o.Key = chain, secrets.NewValue(key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	said, _, _ = w.replica(t)
	said.untilText(t, "because what is stored cannot be used: ")
	said.until(t, "served")
	served, err := acme.Dial(t.Context(), w.edge, "c.example.com", 20*time.Second)
	if err != nil || !slices.Equal(acme.Names(served[0]), []string{"c.example.com"}) {
		t.Errorf("%v, %v", acme.Names(served[0]), err)
	}
}

// TestStoreGone: Nomad is unreachable for longer than the leader's lease. The
// leader steps down and reports why, the certificate is still served, and a
// replica becomes leader afterwards. Nothing is ordered twice.
func TestStoreGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devtest.Cluster(t, devcluster.Options{}), "")
	w.want(t)
	said, address, _ := w.replica(t)
	said.until(t, "served")
	before := w.served(t)
	has(t, get(t, address, "/metrics"), "drover_store_up 1\n")

	if err := w.cluster.Kill(t.Context(), "nomad-server"); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	said.until(t, "standby")
	t.Logf("stepped back after %s", time.Since(gone).Truncate(100*time.Millisecond))
	said.untilText(t, "leader: Nomad Variables: locking drover/controller/leader: ")
	if got := w.served(t); got != before {
		t.Errorf("served is %s instead of %s", got, before)
	}
	has(t, get(t, address, "/health"), `"state":"standby"`)
	eventually(t, "the store is down", func() bool { return strings.Contains(get(t, address, "/metrics"), "drover_store_up 0\n") })
	has(t, get(t, address, "/metrics"), "drover_controller_leader 0\n", `drover_certificate_info{certificate="c",issuer="pebble"`)

	if err := w.cluster.Restart(t.Context(), "nomad-server"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a leader", func() bool { return strings.Contains(get(t, address, "/metrics"), "drover_controller_leader 1\n") })
	eventually(t, "the store is up", func() bool { return strings.Contains(get(t, address, "/metrics"), "drover_store_up 1\n") })
	if n := said.count("ordered"); n != 1 || said.count("failed") != 0 {
		t.Errorf("%d orders\n%s", n, said)
	}
}

// drift: jobs of a release were changed, stopped and purged.
func drift(t *testing.T, w *world) {
	var services []record.Service
	register := func(id string, priority int) uint64 {
		job := api.NewBatchJob(id, id, "global", priority)
		job.Datacenters = []string{"nowhere"} // it need not run
		job.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "mock_driver")))
		if _, _, err := w.nomad.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
		got, _, err := w.nomad.Jobs().Info(id, nil)
		if err != nil {
			t.Fatal(err)
		}
		return *got.JobModifyIndex
	}
	for _, id := range []string{"same", "edited", "stopped"} {
		services = append(services, record.Service{Name: id, JobID: id, Namespace: "drift", Region: "global", Change: "create", Spec: "x", Index: register(id, 50)})
	}
	services = append(services, record.Service{Name: "purged", JobID: "purged", Namespace: "drift", Change: "create", Spec: "x", Index: 7})
	runs := api.NewServiceJob("runs", "runs", "global", 50)
	runs.Datacenters = []string{"*"}
	runs.AddTaskGroup(api.NewTaskGroup("g", 1).AddTask(api.NewTask("t", "mock_driver").SetConfig("run_for", "1h")))
	if _, _, err := w.nomad.Jobs().Register(runs, nil); err != nil {
		t.Fatal(err)
	}
	registered, _, err := w.nomad.Jobs().Info("runs", nil)
	if err != nil {
		t.Fatal(err)
	}
	services = append(services, record.Service{Name: "runs", Target: "here", JobID: "runs", Namespace: "drift", Change: "create", Spec: "x", Index: *registered.JobModifyIndex, Step: record.StepDone})
	r := record.OpenReleases(w.nomad, "shop", "prod")
	journal, err := r.Create(t.Context(), &record.Release{Number: 3, Stack: "shop", Environment: "prod", State: record.Done, Owner: "test", Targets: json.RawMessage(`[{}]`)}, services)
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	register("edited", 60)
	if _, _, err := w.nomad.Jobs().Deregister("stopped", false, nil); err != nil {
		t.Fatal(err)
	}
	said, address, _ := w.replica(t, func(c *controller.Config) { c.Nomad, c.LookEvery = w.nomad, 500*time.Millisecond })
	said.untilText(t, "stack shop in environment prod is not as release 3 left it: edited was changed, stopped is stopped, purged is not there; see drover plan shop -e prod")
	has(t, get(t, address, "/metrics"), `drover_stack_drift{stack="shop",environment="prod"} 3`)
	observes(t, w, address)
}

// observes checks what the metrics say about the stack of drift.
func observes(t *testing.T, w *world, address string) {
	wait := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			eventually(t, line, func() bool { return strings.Contains(get(t, address, "/metrics"), line+"\n") })
		}
	}
	const of = `{stack="shop",environment="prod",target="%s",release="3",service="%s"`
	wait(
		`drover_release_state{stack="shop",environment="prod",release="3",state="deployed"} 1`,
		fmt.Sprintf("drover_service_registered"+of+"} 1", "", "same"),
		fmt.Sprintf("drover_service_registered"+of+"} 0", "", "stopped"),
		fmt.Sprintf("drover_service_registered"+of+"} 0", "", "purged"),
		fmt.Sprintf("drover_service_allocations"+of+`,state="queued"} 1`, "", "same"),
		fmt.Sprintf("drover_service_allocations"+of+`,state="running"} 1`, "here", "runs"),
		fmt.Sprintf("drover_service_deployment_status"+of+`,status="successful"} 1`, "here", "runs"),
		fmt.Sprintf("drover_service_restarts_total"+of+"} 0", "here", "runs"),
	)
	list, _, err := w.nomad.Jobs().Allocations("runs", false, nil)
	if err != nil || len(list) != 1 {
		t.Fatalf("got %d allocations and %v, want 1", len(list), err)
	}
	if err := w.nomad.Allocations().Restart(&api.Allocation{ID: list[0].ID, Namespace: list[0].Namespace}, "", nil); err != nil {
		t.Fatal(err)
	}
	wait(fmt.Sprintf("drover_service_restarts_total"+of+"} 1", "here", "runs"))

	// Another release, with a schedule beside it.
	r := record.OpenReleases(w.nomad, "shop", "prod")
	journal, err := r.Create(t.Context(), &record.Release{
		Number: 4, Stack: "shop", Environment: "prod", State: record.NeedsApproval, Started: time.Unix(1000, 0), Owner: "test",
		Targets: json.RawMessage(`[{}]`), Waves: []record.Wave{{Name: "all", State: record.NeedsApproval}},
	}, []record.Service{{Name: "runs", JobID: "runs", Namespace: "drift", Change: "update", Before: "x", Spec: "y"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = record.OpenSchedules(w.nomad, "shop", "prod").Change(t.Context(), "night", func(s *record.Schedule) {
		s.Runs = append(s.Runs, record.Run{At: time.Unix(2000, 0), Outcome: "deployed", OK: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	wait(
		`drover_release_gate_waiting_since_timestamp_seconds{stack="shop",environment="prod",release="4",wave="all",gate="approval"} 1000`,
		`drover_schedule_last_run_outcome{stack="shop",environment="prod",schedule="night",outcome="deployed"} 1`,
		`drover_schedule_last_run_ok{stack="shop",environment="prod",schedule="night"} 1`,
		fmt.Sprintf("drover_service_allocations"+`{stack="shop",environment="prod",target="",release="4",service="%s"`+`,state="running"} 1`, "runs"),
	)
	if text := get(t, address, "/metrics"); strings.Contains(text, `release="3"`) {
		t.Errorf("the metrics do not forget release 3:\n%s", text)
	}
}

// orphans: a stale registration of a lost client is reported, and removed only
// with SweepOrphans; one that may belong to another cluster stays.
func orphans(t *testing.T, w *world) {
	const (
		dead    = "_nomad-task-01234567-89ab-cdef-0123-456789abcdef-group-x-lost-http"
		foreign = "_nomad-task-11234567-89ab-cdef-0123-456789abcdef-group-x-lost-http"
	)
	// A node whose Consul agent is dead. Consul's leader removes it from the catalog
	// within a minute, since no member has its name: lose registers it again.
	lose := func() {
		_, err := w.consul.Catalog().Register(&capi.CatalogRegistration{
			Node: "lost-node", Address: "127.0.0.77", Service: &capi.AgentService{ID: dead, Service: "lost"},
			Check: &capi.AgentCheck{Node: "lost-node", CheckID: "serfHealth", Name: "Serf Health Status", Status: capi.HealthCritical},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	reap := func() {
		if _, err := w.consul.Catalog().Deregister(&capi.CatalogDeregistration{Node: "lost-node"}, nil); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(reap)
	// whileLost waits for ok while the node is lost.
	whileLost := func(what string, ok func() bool) {
		t.Helper()
		eventually(t, what, func() bool {
			if ok() {
				return true
			}
			lose()
			return false
		})
	}
	// A registration of an allocation that this Nomad does not know, on a live node.
	if err := w.consul.Agent().ServiceRegister(&capi.AgentServiceRegistration{Name: "foreign", ID: foreign}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.consul.Agent().ServiceDeregister(foreign) })

	often := func(sweep bool) func(*controller.Config) {
		return func(c *controller.Config) {
			c.Nomad, c.Consul, c.LookEvery, c.SweepOrphans = w.nomad, w.consul, 100*time.Millisecond, sweep
		}
	}
	said, address, stop := w.replica(t, often(false))
	const found = "left behind, and would be removed with --sweep-orphans: service lost of allocation 01234567 on node lost-node"
	whileLost("the stale registration is reported", func() bool { return said.has(found) })
	said.untilText(t, "left behind, or of another Nomad cluster, so it stays: service foreign of allocation 11234567")
	whileLost("two orphans are counted", func() bool { return strings.Contains(get(t, address, "/metrics"), "drover_consul_orphans 2\n") })
	stop()
	reap() // as Consul's leader may do at any time

	said, address, _ = w.replica(t, often(true))
	const removed = "removed from Consul: service lost of allocation 01234567 on node lost-node"
	whileLost("the stale registration is removed", func() bool { return said.has(removed) })
	eventually(t, "one orphan is counted", func() bool { return strings.Contains(get(t, address, "/metrics"), "drover_consul_orphans 1\n") })
	eventually(t, "the service is not in Consul", func() bool {
		list, _, err := w.consul.Catalog().Service("lost", "", nil)
		return err == nil && len(list) == 0
	})
	if list, _, err := w.consul.Catalog().Service("foreign", "", nil); err != nil || len(list) != 1 {
		t.Errorf("another cluster's registration: %v, %v", list, err)
	}
}

// eventually waits until ok, for up to patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	devtest.Until(t, patience, what, ok)
}
