package chaos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drover-nomad/drover/devcluster"
)

// fault is something that breaks while a release is in progress. It returns
// when what it broke works again.
type fault struct {
	name string
	site string
	// often is how many of the seeds it gets, 1 when 0.
	often  int
	strike func(ctx context.Context, r *run, hold time.Duration) error
}

// faults are all that are known, those of one site one after the other.
var faults = append([]fault{
	{name: "service killed", strike: signalled(syscall.SIGKILL, ofService)},
	{name: "service stopped and continued", strike: signalled(syscall.SIGSTOP, ofService)},
	{name: "service restarted", strike: restarted(ofService)},
	{name: "HAProxy killed", strike: signalled(syscall.SIGKILL, ofEdge)},
	{name: "HAProxy stopped and continued", strike: signalled(syscall.SIGSTOP, ofEdge)},
	{name: "HAProxy restarted", strike: restarted(ofEdge)},
	{name: "controller killed", strike: signalled(syscall.SIGKILL, ofController)},
	{name: "controller stopped and continued", strike: signalled(syscall.SIGSTOP, ofController)},
	{name: "controller restarted", strike: restarted(ofController)},
	{name: "drover killed", often: 3, strike: func(_ context.Context, r *run, _ time.Duration) error {
		_ = r.deploy.cmd.Process.Kill()
		return nil
	}},
	{name: "drover interrupted", often: 2, strike: func(_ context.Context, r *run, _ time.Duration) error {
		_ = r.deploy.cmd.Process.Signal(os.Interrupt)
		return nil
	}},
	{name: "drover asleep", strike: func(ctx context.Context, r *run, hold time.Duration) error {
		_ = r.deploy.cmd.Process.Signal(syscall.SIGSTOP)
		defer r.deploy.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended
		return wait(ctx, hold)
	}},
	{name: "drover asleep, another goes on", strike: func(ctx context.Context, r *run, _ time.Duration) error {
		_ = r.deploy.cmd.Process.Signal(syscall.SIGSTOP)
		defer r.deploy.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended
		r.takenOver = true
		r.drover("resume", "--lock-wait", "45s")
		return nil
	}},
	{name: "API slow", strike: throughAPI(func(r *run, w http.ResponseWriter, q *http.Request) bool {
		_ = wait(q.Context(), r.upTo(3*time.Second))
		return true
	})},
	{name: "API resets connections", often: 2, strike: throughAPI(func(r *run, w http.ResponseWriter, _ *http.Request) bool {
		if r.chance(2) {
			return true
		}
		reset(w)
		return false
	})},
	{name: "API answers 429", strike: throughAPI(answers(http.StatusTooManyRequests))},
	{name: "API answers 500", often: 2, strike: throughAPI(answers(http.StatusInternalServerError))},
	{name: "API answers 503", strike: throughAPI(answers(http.StatusServiceUnavailable))},
	{name: "API hangs", often: 2, strike: throughAPI(func(r *run, w http.ResponseWriter, q *http.Request) bool {
		select { // until the fault is over, or the client goes
		case <-r.healed.Load().(chan struct{}):
		case <-q.Context().Done():
		}
		reset(w)
		return false
	})},
}, agentFaults()...)

func agentFaults() []fault {
	out := []fault{
		// Seeds go round over this list: what is put in takes the place of
		// another, so that those after it stay what they are.
		{name: "token revoked", site: secure, often: 4, strike: func(ctx context.Context, r *run, _ time.Duration) error {
			_, err := r.site.nomad.ACLTokens().Delete(r.token, nil)
			return err
		}},
		{name: "disk full", site: full, often: 3, strike: diskFull},
		{name: "the node's clock jumps", site: clocks, strike: jumps(func(r *run) string { return r.site.clock }, ofNode)},
		{name: "drover's clock jumps", site: clocks, strike: jumps(func(r *run) string { return r.clock }, ofDeploy)},
		{name: "client stopped until it is lost", site: nodes, strike: func(ctx context.Context, r *run, _ time.Duration) error {
			name := r.one(r.site.agents(ctx, "nomad", false))
			if err := r.site.dev.Stop(ctx, name); err != nil {
				return err
			}
			defer r.site.dev.Cont(context.WithoutCancel(ctx), name) //nolint:errcheck // the oracle would see it
			return r.untilDown(ctx, name)
		}},
		{name: "client cut off", site: nodes, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return parted(ctx, r, true, node(1+r.upToN(2)), func() error { return wait(ctx, hold) })
		}},
		{name: "client cut off until it is lost", site: nodes, strike: func(ctx context.Context, r *run, _ time.Duration) error {
			far := node(1 + r.upToN(2))
			return parted(ctx, r, true, far, func() error { return r.untilDown(ctx, far[0]) })
		}},
		{name: "leader killed", site: nodes, often: 2, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return bounced((*devcluster.Cluster).Kill)(ctx, r, r.leader(ctx), hold)
		}},
		{name: "leader cut off from the other agents", site: nodes, often: 2, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return parted(ctx, r, false, []string{r.leader(ctx)}, func() error { return wait(ctx, hold) })
		}},
		{name: "leader stopped and continued", site: nodes, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return paused(ctx, r, r.leader(ctx), hold)
		}},
		{name: "region cut off", site: regions, often: 4, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return parted(ctx, r, true, r.site.ofRegion(ctx, "us"), func() error { return wait(ctx, hold) })
		}},
		{name: "region stopped and continued", site: regions, often: 2, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return paused(ctx, r, "us-nomad-server-1", hold)
		}},
		{name: "region lost", site: regions, often: 3, strike: func(ctx context.Context, r *run, hold time.Duration) error {
			return bounced((*devcluster.Cluster).Kill)(ctx, r, "us-nomad-server-1", hold)
		}},
	}
	for _, a := range []struct {
		name, program string
		server        bool
	}{{"Nomad server", "nomad", true}, {"Nomad client", "nomad", false}, {"Consul", "consul", true}} {
		name := func(ctx context.Context, r *run) string { return r.one(r.site.agents(ctx, a.program, a.server)) }
		out = append(out,
			fault{name: a.name + " killed", often: 2, strike: func(ctx context.Context, r *run, hold time.Duration) error {
				return bounced((*devcluster.Cluster).Kill)(ctx, r, name(ctx, r), hold)
			}},
			fault{name: a.name + " stopped and continued", often: 2, strike: func(ctx context.Context, r *run, hold time.Duration) error {
				return paused(ctx, r, name(ctx, r), hold)
			}},
			fault{name: a.name + " restarted", strike: func(ctx context.Context, r *run, _ time.Duration) error {
				return r.site.dev.Restart(ctx, name(ctx, r))
			}})
	}
	return out
}

// bounced takes an agent down, and up again after a while.
func bounced(down func(*devcluster.Cluster, context.Context, string) error) func(context.Context, *run, string, time.Duration) error {
	return func(ctx context.Context, r *run, name string, hold time.Duration) error {
		if err := down(r.site.dev, ctx, name); err != nil {
			return err
		}
		if err := wait(ctx, hold); err != nil {
			return err
		}
		return r.site.dev.Restart(ctx, name)
	}
}

func paused(ctx context.Context, r *run, name string, hold time.Duration) error {
	if err := r.site.dev.Stop(ctx, name); err != nil {
		return err
	}
	err := wait(ctx, hold)
	if cerr := r.site.dev.Cont(context.WithoutCancel(ctx), name); err == nil {
		err = cerr
	}
	return err
}

// Prefixes of jobs whose tasks are hit.
func ofService(r *run) string  { return r.name + "-" }
func ofEdge(*run) string       { return "edge" }
func ofController(*run) string { return "drover-controller" }

// signalled hits the processes of one job; what was stopped goes on later.
func signalled(sig syscall.Signal, job func(*run) string) func(context.Context, *run, time.Duration) error {
	return func(ctx context.Context, r *run, hold time.Duration) error {
		pids := r.site.processes(job(r))
		if len(pids) == 0 {
			return nil // between two
		}
		if job(r) == ofService(r) {
			pids = []int{pids[r.upToN(len(pids))]}
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig)
		}
		if sig != syscall.SIGSTOP {
			return nil
		}
		err := wait(ctx, hold)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		return err
	}
}

// restarted asks Nomad to restart one allocation of a job.
func restarted(job func(*run) string) func(context.Context, *run, time.Duration) error {
	return func(_ context.Context, r *run, _ time.Duration) error {
		list, _, err := r.site.nomad.Allocations().PrefixList("")
		if err != nil {
			return err
		}
		for _, a := range list {
			if len(a.JobID) >= len(job(r)) && a.JobID[:len(job(r))] == job(r) && a.ClientStatus == "running" {
				alloc, _, err := r.site.nomad.Allocations().Info(a.ID, nil)
				if err != nil {
					return err
				}
				_ = r.site.nomad.Allocations().Restart(alloc, "", nil) // it may be gone meanwhile
				return nil
			}
		}
		return nil
	}
}

// throughAPI has the requests of the deploy pass through f for a while.
func throughAPI(f func(*run, http.ResponseWriter, *http.Request) bool) func(context.Context, *run, time.Duration) error {
	return func(ctx context.Context, r *run, hold time.Duration) error {
		healed := make(chan struct{})
		r.healed.Store(healed)
		r.proxy.Before(func(w http.ResponseWriter, q *http.Request) bool { return f(r, w, q) })
		err := wait(ctx, hold)
		r.proxy.Before(nil)
		close(healed)
		return err
	}
}

func answers(status int) func(*run, http.ResponseWriter, *http.Request) bool {
	return func(r *run, w http.ResponseWriter, _ *http.Request) bool {
		if r.chance(2) {
			return true
		}
		http.Error(w, "chaos: "+http.StatusText(status), status)
		return false
	}
}

// reset ends a connection with an RST.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// diskFull fills the disk that the agents keep their data on. Agents that
// ended of it are started again when there is room.
func diskFull(ctx context.Context, r *run, hold time.Duration) error {
	path := filepath.Join(r.site.disk, "ballast")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(zeros)
	}
	_ = f.Close()
	err = wait(ctx, hold)
	if rerr := os.Remove(path); err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	for _, a := range r.site.dev.Agents(ctx) {
		if a.State != devcluster.StateRunning {
			r.t.Logf("%s had ended", a.Name)
			if err := r.site.dev.Restart(ctx, a.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// traffic is what clients do all the while.
type traffic struct {
	sent, lost atomic.Int64
}

// browse asks for a page of the stack until ctx ends, ten times a second.
func (r *run) browse(ctx context.Context, tr *traffic) {
	client := r.site.client(3 * time.Second)
	defer client.CloseIdleConnections()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		tr.sent.Add(1)
		if !r.look(ctx, client) && ctx.Err() == nil {
			tr.lost.Add(1)
		}
	}
}

func (r *run) url(path string) string {
	return fmt.Sprintf("http://%s:9080/%s%s", r.site.host, r.name, path)
}

func (r *run) page(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url("/"), nil)
	if err != nil {
		return false
	}
	began := time.Now()
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			r.t.Logf("after %s: %v", time.Since(began).Round(time.Millisecond), err)
		}
		return false
	}
	defer res.Body.Close() //nolint:errcheck // read only
	_, err = io.Copy(io.Discard, res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		r.t.Logf("after %s: %s, %v", time.Since(began).Round(time.Millisecond), res.Status, err)
		return false
	}
	return true
}

// upload puts files until ctx ends and remembers those that were acknowledged.
func (r *run) upload(ctx context.Context, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	client := r.site.client(5 * time.Second)
	defer client.CloseIdleConnections()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		r.keep(ctx, client, fmt.Sprintf("f%d", i), rng)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
