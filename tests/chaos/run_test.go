package chaos

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// run is one release of a stack of its own that is struck by faults.
type run struct {
	t     *testing.T
	site  *site
	seed  uint64
	name  string // of the stack
	dir   string // its source
	data  string // its files
	env   []string
	proxy *devtest.Proxy
	token string // accessor of the deployer, "" without ACLs
	clock string // of the deploy, see newClock

	base   int            // the release before the one that is struck
	counts map[string]int // job, and service in Consul → instances that are wanted
	// The requests of clients: look at a page, store a file, and read a file.
	look  func(context.Context, *http.Client) bool
	store func(ctx context.Context, c *http.Client, name string, body []byte) bool
	fetch func(name string) ([]byte, error)

	deploy    *process
	takenOver bool         // another drover process resumed the release
	healed    atomic.Value // chan struct{}, closed when the API answers again

	mu    sync.Mutex
	rng   *rand.Rand
	said  bytes.Buffer      // by drover
	files map[string]string // acknowledged: name → checksum
	row   Row
}

// chance is true once in n.
func (r *run) chance(n int) bool { return r.upToN(n) == 0 }

func (r *run) upToN(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.IntN(n)
}

func (r *run) upTo(d time.Duration) time.Duration { return time.Duration(r.upToN(int(d))) }

func (r *run) one(names []string) string { return names[r.upToN(len(names))] }

func (r *run) violate(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.row.Violations = append(r.row.Violations, fmt.Sprintf(format, args...))
}

// environment of the stack.
func (r *run) environment() string {
	switch {
	case r.site.kind == ocis:
		return "dev"
	case len(r.site.regions) > 1:
		return "prod"
	}
	return "default"
}

func (r *run) args(verb string, more ...string) []string {
	args := []string{verb, r.dir}
	if e := r.environment(); e != "default" {
		args = append(args, "-e", e)
	}
	if verb == "deploy" { // a node that was away may not be ready yet
		args = append(args, "--allow-unplaceable")
	}
	return append(args, more...)
}

// drover runs a verb on the stack, past the proxy.
func (r *run) drover(verb string, more ...string) (string, int) {
	out, code := r.site.run(r.t.Context(), r.env, r.args(verb, more...)...)
	r.heard(verb, out, code)
	return out, code
}

func (r *run) heard(verb, out string, code int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said.WriteString(out)
	if code == hung {
		r.row.Violations = append(r.row.Violations, fmt.Sprintf("drover %s hung:\n%s", verb, out))
	}
	if strings.Contains(out, "panic:") || strings.Contains(out, "goroutine 1 [") && code != hung {
		r.row.Violations = append(r.row.Violations, fmt.Sprintf("drover %s panicked:\n%s", verb, out))
	}
}

// until polls.
func (r *run) until(ctx context.Context, limit time.Duration, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !ok() {
		if wait(ctx, 300*time.Millisecond) != nil {
			return fmt.Errorf("not within %s: %s", limit, what)
		}
	}
	return nil
}

// releases are the records of the stack.
func (r *run) releases() *record.Releases {
	return record.OpenReleases(r.site.nomad, r.name, r.environment())
}

// newRun makes a stack and its deployer.
func newRun(t *testing.T, s *site, seed uint64) *run {
	t.Helper()
	r := &run{
		t: t, site: s, seed: seed, name: fmt.Sprintf("c%d", seed), dir: t.TempDir(),
		rng: rand.New(rand.NewPCG(seed, 0)), files: map[string]string{}, env: s.env,
		row: Row{Seed: seed, Site: s.name()},
	}
	r.look, r.store = r.page, r.put
	r.fetch = func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(r.data, name)) }
	r.data = filepath.Join(s.dev.DataDir(), r.name)
	if err := os.MkdirAll(r.data, 0o700); err != nil {
		t.Fatal(err)
	}
	r.proxy = devtest.NewProxy(t, s.dev.NomadConfig())
	r.clock = newClock(t, t.TempDir())
	r.login()
	return r
}

// login gives the run the tokens of a deployer, on a cluster that wants them.
func (r *run) login() {
	if !r.site.secured {
		return
	}
	tokens := devtest.Tokens(r.t, r.site.dev, acl.Deployer)
	r.env = append(slices.Clone(r.env), tokens...)
	_, secret, _ := strings.Cut(tokens[0], "=")
	token, _, err := r.site.nomad.ACLTokens().Self(&api.QueryOptions{AuthToken: secret})
	if err != nil {
		r.t.Fatal(err)
	}
	r.token = token.AccessorID
}

// plan is what the seed says.
type plan struct {
	faults []fault
	after  []int           // writes of the deploy before each fault
	delay  []time.Duration // and then
	hold   []time.Duration
	crash  bool   // one service of the new version does not start
	verb   string // for a release that is left open
	json   bool
	silent time.Duration // --unreachable-after
}

// all is faults as often as each is wanted: seeds go round.
var all = func() []fault {
	var out []fault
	for _, f := range faults {
		if f.site == "" {
			f.site = single
		}
		for range max(f.often, 1) {
			out = append(out, f)
		}
	}
	return out
}()

// first is the fault that a seed is about.
func first(seed uint64) fault { return all[seed%uint64(len(all))] }

// others are faults that can strike together with f: those of its site, and
// those that every site knows.
func (f fault) others() []fault {
	return slices.DeleteFunc(slices.Clone(all), func(o fault) bool {
		everywhere := strings.HasPrefix(o.name, "service ") || strings.HasPrefix(o.name, "Nomad ") || strings.HasPrefix(o.name, "Consul ")
		return o.name == f.name || strings.HasPrefix(o.name, "drover") || o.site != f.site && !everywhere
	})
}

func (r *run) plan() plan {
	rng := r.rng
	p := plan{faults: []fault{first(r.seed)}}
	if also := p.faults[0].others(); rng.IntN(5) == 0 { // two at a time
		p.faults = append(p.faults, also[rng.IntN(len(also))])
	}
	for range p.faults {
		p.after = append(p.after, 1+rng.IntN(22))
		p.delay = append(p.delay, time.Duration(rng.IntN(1500))*time.Millisecond)
		p.hold = append(p.hold, 500*time.Millisecond+time.Duration(rng.IntN(11_000))*time.Millisecond)
	}
	slices.Sort(p.after)
	p.crash = rng.IntN(8) == 0
	p.verb = []string{"resume", "resume", "abort", "take-over"}[rng.IntN(4)]
	p.json = rng.IntN(2) == 0
	p.silent = []time.Duration{4 * time.Second, 20 * time.Second}[rng.IntN(2)]
	return p
}

// version is one state of the stack: how to write its source, and what Nomad
// shows when it runs.
type version struct {
	write func()
	runs  map[string]string // REGION/JOB → VALUE
}

func (r *run) version(services []service) version {
	return version{func() { r.write(services) }, r.wanted(services)}
}

// execute is a run on a cheap stack.
func (r *run) execute() {
	p := r.plan()
	from, to := versions(r.rng)
	r.counts = map[string]int{}
	for _, s := range to {
		r.counts[r.job(s.name)] = s.count
	}
	bad := slices.Clone(to)
	if p.crash {
		for i := range bad {
			if bad[i].name == "web" {
				bad[i].crash, bad[i].value = true, "2"
			}
		}
	}
	one := r.version(from)
	one.write()
	if out, code := r.drover("deploy"); code != 0 {
		r.violate("the first deploy, before any fault, ended with %d:\n%s", code, out)
		return
	}
	if r.site.host != "" {
		client := r.site.client(3 * time.Second)
		if err := r.until(r.t.Context(), time.Minute, "the edge leads to it", func() bool { return r.page(r.t.Context(), client) }); err != nil {
			r.violate("%s", err)
			return
		}
		client.CloseIdleConnections()
	}
	r.known()
	if r.release(p, one, r.version(bad), r.version(to)) {
		r.leave()
	}
}

// release deploys the version bad, strikes, and gets to the version two: the
// same unless bad has a service that does not start.
func (r *run) release(p plan, one, bad, two version) bool {
	t, ctx := r.t, r.t.Context()
	bad.write()
	r.base = r.last().Number
	r.row.Crash = p.crash

	// Clients, from the first fault on.
	var tr traffic
	tctx, stopTraffic := context.WithCancel(ctx)
	defer stopTraffic()
	var clients sync.WaitGroup
	begin := sync.OnceFunc(func() {
		if r.site.host != "" {
			clients.Go(func() { r.browse(tctx, &tr) })
			clients.Go(func() { r.upload(tctx, r.seed) })
		}
	})

	// The release and the faults.
	reached := make([]chan struct{}, len(p.faults))
	for i := range reached {
		reached[i] = make(chan struct{})
	}
	r.proxy.Wrote(func(n int) {
		for i, after := range p.after {
			if n == after {
				close(reached[i])
			}
		}
	})
	args := []string{"--prune", "--unreachable-after", p.silent.String()}
	if p.json {
		args = append(args, "-o", "json")
	}
	began := time.Now()
	r.deploy = r.site.start(ctx, append(slices.Clone(r.env), "NOMAD_ADDR="+r.proxy.URL, envClock+"="+r.clock), r.args("deploy", args...)...)
	var healed time.Time
	for i, f := range p.faults {
		select {
		case <-reached[i]:
			_ = wait(ctx, p.delay[i])
		case <-r.deploy.done:
		}
		begin()
		t.Logf("%s after %s for %s", f.name, time.Since(began).Round(time.Millisecond), p.hold[i])
		r.row.Faults = append(r.row.Faults, f.name)
		if err := f.strike(ctx, r, p.hold[i]); err != nil {
			r.violate("the fault %q did not end: %s", f.name, err)
		}
		healed = time.Now()
	}
	out, code := r.deploy.wait()
	r.heard("deploy", out, code)
	r.row.Code = code
	t.Logf("drover ended with %d after %s", code, time.Since(began).Round(time.Millisecond))
	if p.faults[0].name == "token revoked" {
		r.login()
	}

	r.truth(out, code, one, bad)
	if !r.converge(p, one, bad, two) {
		t.Logf("the deploy said\n%s", out)
	}
	r.row.Recover = time.Since(healed)
	stopTraffic()
	clients.Wait()
	r.row.Sent, r.row.Lost = int(tr.sent.Load()), int(tr.lost.Load())

	r.quiet(two)
	r.compare()
	r.secrets()
	if len(r.row.Violations) > 0 {
		t.Logf("the deploy said (exit code %d)\n%s", code, out)
	}
	return len(r.row.Violations) == 0
}

// known puts the files of which the checksums are known.
func (r *run) known() {
	if r.site.host == "" {
		for i := range 20 { // files that no client writes, and that must not be removed
			body := fmt.Appendf(nil, "%d of %d", i, r.seed)
			name := fmt.Sprintf("known%d", i)
			if err := os.WriteFile(filepath.Join(r.data, name), body, 0o600); err != nil {
				r.t.Fatal(err)
			}
			r.files[name] = checksum(body)
		}
		return
	}
	client := r.site.client(5 * time.Second)
	defer client.CloseIdleConnections()
	rng := rand.New(rand.NewPCG(r.seed, 5))
	for i := range 20 {
		name := fmt.Sprintf("known%d", i)
		if err := r.until(r.t.Context(), 30*time.Second, name+" is stored", func() bool { return r.keep(r.t.Context(), client, name, rng) }); err != nil {
			r.violate("%s", err)
			return
		}
	}
}

// keep stores a file, remembers it, and says whether it was acknowledged.
func (r *run) keep(ctx context.Context, client *http.Client, name string, rng *rand.Rand) bool {
	body := make([]byte, 100+rng.IntN(20_000))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	if !r.store(ctx, client, name, body) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[name] = checksum(body)
	return true
}

// put stores a file of a cheap stack.
func (r *run) put(ctx context.Context, client *http.Client, name string, body []byte) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, r.url("/file/"+name), bytes.NewReader(body))
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusCreated
}
