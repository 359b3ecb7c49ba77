package controller_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// envReplica makes the test binary a replica of its own, to be killed.
const envReplica = "DROVER_TEST_REPLICA"

func TestMain(m *testing.M) {
	if text := os.Getenv(envReplica); text != "" {
		if err := replica(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	devtest.Main(m)
}

// settings configure a replica in another process.
type settings struct {
	Nomad, Namespace, Directory, CA, Listen string
	// DieAt is the kind of an event at which the process kills itself.
	DieAt string
}

func (s settings) config(ahead time.Duration) (controller.Config, error) {
	nc := api.DefaultConfig()
	nc.Address, nc.Namespace = s.Nomad, s.Namespace
	client, err := api.NewClient(nc)
	if err != nil {
		return controller.Config{}, err
	}
	l, err := net.Listen("tcp", s.Listen)
	return controller.Config{
		Backend: acme.NomadVariables(client), Listener: l, Clock: &clock{offset: ahead},
		ACME: acme.Config{
			Issuers:       []acme.Issuer{{Name: "pebble", Directory: s.Directory, CA: s.CA, AcceptTerms: []string{acme.AnyTerms}}},
			DefaultIssuer: "pebble", Solvers: map[string]acme.Solver{acme.HTTP01: acme.Stateless{SkipCheck: true}},
		},
	}, err
}

func replica(text string) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	c, err := s.config(0)
	if err != nil {
		return err
	}
	c.Events = func(e acme.Event) {
		_ = json.NewEncoder(os.Stdout).Encode(e)
		if e.Kind == s.DieAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it is
		}
	}
	go func() { // it does not outlive the test
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	return controller.Run(context.Background(), c)
}

// clock is a clock that is wrong by an offset.
type clock struct{ offset time.Duration }

func (c *clock) Now() time.Time                         { return time.Now().Add(c.offset) }
func (c *clock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// log collects what replicas say.
type log struct {
	mu      sync.Mutex
	events  []acme.Event
	changed chan struct{} // closed at the next event
}

func newLog() *log { return &log{changed: make(chan struct{})} }

func (l *log) add(e acme.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *log) count(kind string) int {
	n, _ := l.look(kind)
	return n
}

func (l *log) look(kind string, but ...string) (int, chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.events {
		if e.Kind == kind && !slices.Contains(but, e.Serial) {
			n++
		}
	}
	return n, l.changed
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events {
		fmt.Fprintf(&b, "%s %s %.300s\n", e.Kind, e.Certificate, e.Text)
	}
	return b.String()
}

// patience is how long a test waits for what has to come: long, for a machine
// that has much else to do.
const patience = 3 * time.Minute

// until waits for an event of that kind; with a serial, one about any
// certificate but that.
func (l *log) until(t *testing.T, kind string, but ...string) {
	t.Helper()
	late := time.After(patience)
	for {
		n, changed := l.look(kind, but...)
		if n > 0 {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no event %q within %s:\n%s", kind, patience, l)
		}
	}
}

// has reports whether the text of an event contains text.
func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.events, func(e acme.Event) bool { return strings.Contains(e.Text, text) })
}

// untilText waits for an event whose text contains text.
func (l *log) untilText(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for {
		l.mu.Lock()
		found := slices.ContainsFunc(l.events, func(e acme.Event) bool { return strings.Contains(e.Text, text) })
		changed := l.changed
		l.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("got no event with %q within %s:\n%s", text, patience, l)
		}
	}
}

func get(t *testing.T, address, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(b)
}

func has(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, l) {
			t.Errorf("there is no %s in\n%s", l, text)
		}
	}
}

// run is a replica in this process. It is stopped with the test, or by stop.
func run(t *testing.T, c controller.Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- controller.Run(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// process is a replica in a process of its own. gone is closed when it ended.
func process(t *testing.T, s settings) (said *log, kill func(), gone chan struct{}) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), envReplica+"="+string(text))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, gone = newLog(), make(chan struct{})
	go func() {
		defer close(gone)
		for d := json.NewDecoder(out); ; {
			var e acme.Event
			if d.Decode(&e) != nil {
				break
			}
			said.add(e)
		}
		_ = cmd.Wait()
	}()
	kill = func() {
		_ = cmd.Process.Kill()
		<-gone
	}
	t.Cleanup(kill)
	return said, kill, gone
}

// The leader is killed; the other replica takes over in time and renews what
// is due, once.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devtest.Cluster(t, devcluster.Options{}), "")
	w.want(t)
	nomad, store, s := w.nomad, w.store, w.s

	first, kill, _ := process(t, s)
	first.until(t, "issued")
	before, err := store.Get(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}

	// The others find the certificate due, and leave it to the leader.
	others := newLog()
	var addresses []string
	var stops []func()
	for range 2 {
		c, err := s.config(time.Until(before.Status.RenewAt) + time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		c.Events, c.Nomad, c.Consul, c.Edge = others.add, nomad, w.consul, w.where
		addresses = append(addresses, c.Listener.Addr().String())
		stops = append(stops, run(t, c))
	}
	for _, a := range addresses {
		has(t, get(t, a, "/health"), `"state":"standby"`)
		has(t, get(t, a, "/metrics"), "drover_controller_leader 0\n", "drover_store_up 1\n",
			fmt.Sprintf("drover_certificate_not_after_timestamp_seconds{certificate=\"c\"} %d\n", before.Status.NotAfter.Unix()),
			`drover_certificate_phase{certificate="c",phase="Issued"} 1`)
	}
	if n := others.count("issuing") + others.count("leader"); n != 0 {
		t.Errorf("another replica worked beside the leader:\n%s", others)
	}

	kill()
	killed := time.Now()
	others.until(t, "leader")
	if over := time.Since(killed); over > 40*time.Second {
		t.Errorf("taken over after %s", over)
	} else {
		t.Logf("taken over after %s", over.Truncate(time.Millisecond))
	}
	others.until(t, "issued")
	if over := time.Since(killed); over > 40*time.Second {
		t.Errorf("issued after %s", over)
	}
	issued := time.Now()
	others.until(t, "served", before.Status.Serial)
	if over := time.Since(issued); over > 10*time.Second {
		t.Errorf("served %s later", over)
	}

	leaders := 0
	var stop func()
	for i, a := range addresses {
		metrics := get(t, a, "/metrics")
		leader := strings.Contains(metrics, "drover_controller_leader 1\n")
		if leader != strings.Contains(get(t, a, "/health"), `"state":"leader"`) {
			t.Error("health and metrics do not agree")
		}
		if !leader {
			continue
		}
		leaders++
		after, err := store.Get(t.Context(), "c")
		if err != nil {
			t.Fatal(err)
		}
		if after.Status.Serial == before.Status.Serial {
			t.Error("the certificate is the old one")
		}
		has(t, metrics, `drover_certificate_ready{certificate="c"} 1`, fmt.Sprintf("drover_certificate_served_match{certificate=\"c\",address=%q} 1\n", w.edge),
			`drover_controller_last_reconcile_timestamp_seconds{work="certificates"}`)
		has(t, metrics, "go_goroutines ", "go_gc_heap_live_bytes ", "process_start_time_seconds ", "process_open_fds ", "process_resident_memory_bytes ")
		has(t, metrics, `drover_acme_requests_total{issuer="pebble",status="201"}`, `drover_certificate_attempts{certificate="c"} 0`,
			fmt.Sprintf("drover_certificate_info{certificate=\"c\",issuer=\"pebble\",serial=%q} 1\n", after.Status.Serial))
		for _, secret := range []string{"PRIVATE KEY", "BEGIN"} {
			if strings.Contains(metrics+others.String(), secret) {
				t.Errorf("%s in metrics or events", secret)
			}
		}
		stop = stops[i]
	}
	if leaders != 1 {
		t.Fatalf("%d leaders", leaders)
	}
	stop() // who ends in order hands over at once
	stopped := time.Now()
	for {
		n, changed := others.look("leader")
		if n == 2 {
			break
		}
		select {
		case <-changed:
		case <-time.After(10*time.Second - time.Since(stopped)):
			t.Fatalf("no replica took over from a leader that ended:\n%s", others)
		}
	}
	if n := others.count("issued"); n != 1 || first.count("issued") != 1 {
		t.Errorf("renewed %d times\n%s%s", n, first, others)
	}
}

// losing is a backend whose lock of the leader is lost when the test says so.
type losing struct {
	acme.Backend
	lost chan struct{}
	mu   sync.Mutex
	held bool
}

func (b *losing) Lock(ctx context.Context, path string, ttl time.Duration) (acme.Lease, error) {
	if path != controller.LeaderPath {
		return b.Backend.Lock(ctx, path, ttl)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held {
		return nil, acme.ErrLocked
	}
	b.held = true
	return b, nil
}

func (b *losing) Lost() <-chan struct{}         { return b.lost }
func (b *losing) Release(context.Context) error { return nil }

// stuck is a solver that waits until it is cancelled.
type stuck struct {
	acme.Solver
	began, ended chan struct{}
}

func (s *stuck) Check(ctx context.Context, _ []string, _ string) error {
	close(s.began)
	<-ctx.Done()
	close(s.ended)
	return ctx.Err()
}

// A replica that loses its lock stops its work.
func TestLockLost(t *testing.T) {
	t.Parallel()
	b := &losing{Backend: acme.Directory(t.TempDir()), lost: make(chan struct{})}
	s := &stuck{Solver: acme.Stateless{}, began: make(chan struct{}), ended: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	said := newLog()
	c := controller.Config{Backend: b, Listener: l, Events: said.add, ACME: acme.Config{Solvers: map[string]acme.Solver{acme.HTTP01: s}}}
	m := acme.NewManager(acme.Config{Store: acme.NewStore(b)})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "c", Names: []string{"c.example.com"}}); err != nil {
		t.Fatal(err)
	}
	run(t, c)
	within(t, s.began, patience)
	has(t, get(t, l.Addr().String(), "/health"), `"state":"leader"`)
	close(b.lost)
	ended := time.Now()
	within(t, s.ended, time.Second)
	said.until(t, "standby")
	if over := time.Since(ended); over > 2*time.Second {
		t.Errorf("standby after %s", over)
	}
	has(t, get(t, l.Addr().String(), "/health"), `"state":"standby"`)
	if said.count("failed") != 0 {
		t.Errorf("the certificate is blamed:\n%s", said)
	}
}

func within(t *testing.T, ch <-chan struct{}, limit time.Duration) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(limit):
		t.Fatalf("not within %s", limit)
	}
}

// impatient is a clock on which no wait of ten seconds or more ever ends.
type impatient struct{ acme.SystemClock }

func (c impatient) After(d time.Duration) <-chan time.Time {
	if d >= 10*time.Second {
		return nil
	}
	return c.SystemClock.After(d)
}

// A request to renew does not wait for the next look at all certificates: a command
// waits for it.
func TestRequestIsNoticed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, devtest.Cluster(t, devcluster.Options{}), "request")
	w.want(t)
	said, _, _ := w.replica(t, func(c *controller.Config) { c.Nomad, c.Clock = w.nomad, impatient{} })
	said.until(t, "issued")
	o, err := w.store.Update(t.Context(), "c", func(o *acme.Object) error {
		o.Status.RenewAt, o.Status.RenewedBy = time.Now(), "this test"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	said.until(t, "issued", o.Status.Serial)
}
