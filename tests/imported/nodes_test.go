package imported

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/doctor"
)

// shop is an application whose services are on two nodes. All of them listen on port
// 5432, so that a name must lead to the right one. The database keeps a file.
const shop = `
services:
  web:
    image: composespec/conformance-tests-server
    environment:
      HTTP_PORT: 5432
      VERSION: ${VERSION:-1}
      API_TOKEN: very-secret-token
      DATABASE: http://db:5432/ping
    ports: ["8081:5432"]
    depends_on: [db]
    deploy:
      replicas: 2
      update_config: {order: start-first}
      placement:
        constraints: ["node.hostname == n1"]
  db:
    image: composespec/conformance-tests-server
    user: "1000:1000"
    environment: {HTTP_PORT: 5432}
    expose: ["5432"]
    volumes: ["data:/volumes"]
    deploy:
      placement:
        constraints: ["node.hostname == n2"]
volumes:
  data:
`

// testTwoNodes: names work over two nodes with unmodified images, a database that is
// replaced keeps its name and its data, and an update loses no request.
func testTwoNodes(t *testing.T, w *world) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	must(t, os.WriteFile(file, []byte(shop), 0o600))
	dir := w.Import(t, "shop", file)
	nodes := w.Nodes[:2]
	w.Deploy(t, dir, on(nodes...)...)
	const web = "http://127.0.0.1:8081"
	name := func(ask string) string { return web + "/ping?timeout=1m&address=db:5432/" + ask }
	for _, n := range nodes {
		n.answers(t, name("ping"), "PONG FROM TARGET")
		n.answers(t, web+"/ping?address=web:5432/env?name=VERSION", "1")
		n.answers(t, web+"/env?name=API_TOKEN", "very-secret-token")
	}
	nodes[0].answers(t, name("write?filename=row%26text=kept"), "written")

	t.Run("a replaced database keeps its name and its data", func(t *testing.T) {
		stop, silent := load(t, nodes, name("ping"))
		old := w.running(t, "shop-db")
		w.eligible(t, old.NodeID, false) // so that there is a time without a database
		must(t, w.stop(old))
		devtest.Until(t, time.Minute, "the old allocation has ended", func() bool {
			a, _, err := w.Nomad.Allocations().Info(old.ID, nil)
			must(t, err)
			return a.ClientTerminalStatus()
		})
		ended := time.Now()
		devtest.Until(t, 20*time.Second, "all clients wait", func() bool { return silent() > 500*time.Millisecond })
		placed := time.Now()
		w.eligible(t, old.NodeID, true)
		var new *api.Allocation
		devtest.Until(t, time.Minute, "another allocation of db runs", func() bool {
			new = w.running(t, "shop-db")
			return new != nil && new.ID != old.ID
		})
		// The requests that the program was answering at its end are lost. Those from
		// then on, until the new allocation runs, have to wait and are answered.
		counts := stop()
		for _, began := range counts.lostAt {
			if began.After(ended) {
				t.Errorf("a request of %s after the end of the database was lost, want it to wait:%s", began.Sub(ended), counts.first)
			}
		}
		waited := 0
		for _, a := range counts.answered {
			if a.began.Before(placed) && a.ended.After(placed) {
				waited++
			}
		}
		if waited != clients*len(nodes) {
			t.Errorf("got %d answers to requests that came before the new allocation was placed, want %d", waited, clients*len(nodes))
		}
		nodes[0].answers(t, name("volumefile?filename=row"), "kept")
		if a, b := hostPort(old), hostPort(new); a == b {
			t.Errorf("the new allocation has port %d as the old one: the name was not tried with another", a)
		}
	})

	t.Run("an update loses no request", func(t *testing.T) {
		stop, _ := load(t, nodes, web+"/env?name=VERSION")
		w.Drover.Want(t, 0, append([]string{"deploy", dir, "--var", "version=2", "-y"}, on(nodes...)...)...)
		counts := stop()
		if counts.lost > 0 || counts.answers["1"] == 0 || counts.answers["2"] == 0 {
			t.Errorf("got %v and %d lost, want answers of both versions and no loss:%s", counts.answers, counts.lost, counts.first)
		}
		t.Logf("%v answers, %d lost", counts.answers, counts.lost)
		for range 10 {
			nodes[1].answers(t, web+"/env?name=VERSION", "2")
		}
	})
}

// testDoctor: doctor finds a node where the addresses of the mesh are not local, and its
// remedy mends that.
func testDoctor(t *testing.T, w *world) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	must(t, os.WriteFile(file, []byte(shop), 0o600))
	dir := w.Import(t, "shop", file)
	look := func() (bad []doctor.Finding) {
		t.Helper()
		out, _ := w.Drover.Run(t, "doctor", dir, "--probe", "-o", "json")
		var report doctor.Report
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		seen := false
		for _, f := range report.Findings {
			if f.Check == "mesh" {
				seen = true
				if f.Severity != doctor.OK {
					bad = append(bad, f)
				}
			}
		}
		if !seen {
			t.Errorf("got no finding about the mesh in\n%s", out)
		}
		return bad
	}
	n := w.Nodes[len(w.Nodes)-1]
	n.Must(t, "ip", "route", "del", "local", meshNetwork, "dev", "lo")
	bad := look()
	if len(bad) != 1 || bad[0].Subject != n.Name || bad[0].Severity != doctor.Error {
		t.Fatalf("got %+v, want one error about %s", bad, n.Name)
	}
	command, _, _ := strings.Cut(bad[0].Mend, ", ")
	n.Must(t, strings.Fields(command)...)
	if bad := look(); len(bad) > 0 {
		t.Errorf("got %+v after %q, want nothing", bad, command)
	}
}

// running returns the running allocation of a job with one instance, nil if there is
// none.
func (w *world) running(t *testing.T, job string) *api.Allocation {
	t.Helper()
	list, _, err := w.Nomad.Jobs().Allocations(job, false, nil)
	must(t, err)
	for _, a := range list {
		if a.ClientStatus == "running" && a.DesiredStatus == "run" {
			full, _, err := w.Nomad.Allocations().Info(a.ID, nil)
			must(t, err)
			return full
		}
	}
	return nil
}

// stop stops an allocation; Nomad places another one.
func (w *world) stop(a *api.Allocation) error {
	_, err := w.Nomad.Allocations().Stop(a, nil)
	return err
}

// eligible lets Nomad place allocations on a node, or not.
func (w *world) eligible(t *testing.T, node string, yes bool) {
	t.Helper()
	_, err := w.Nomad.Nodes().ToggleEligibility(node, yes, nil)
	must(t, err)
}

// hostPort is the first port that an allocation has on its node.
func hostPort(a *api.Allocation) int { return a.AllocatedResources.Shared.Ports[0].Value }

// loadCounts is what a load saw.
type loadCounts struct {
	answers  map[string]int
	lost     int
	lostAt   []time.Time // when the lost ones began
	answered []answered
	first    string // failure
}

// answered is a request that got its answer.
type answered struct{ began, ended time.Time }

// clients is how many ask from each node in a load.
const clients = 2

// load asks from all nodes until stop is called: clients that keep their connections
// and clients that do not. silent returns for how long none has got an answer or failed.
func load(t *testing.T, nodes []*node, ask string) (stop func() loadCounts, silent func() time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var (
		mu    sync.Mutex
		total = loadCounts{answers: map[string]int{}}
		wg    sync.WaitGroup
		sent  atomic.Int64
		last  = time.Now()
	)
	for i := range clients * len(nodes) {
		client := nodes[i/clients].Client()
		client.Transport.(*http.Transport).DisableKeepAlives = i%2 == 0
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				began := time.Now()
				text, err := fetch(context.WithoutCancel(ctx), client, ask)
				sent.Add(1)
				mu.Lock()
				last = time.Now()
				if err != nil {
					total.lost++
					total.lostAt = append(total.lostAt, began)
					total.first = fmt.Sprintf("%s %v", total.first, err)[:min(1000, len(total.first)+len(err.Error())+1)]
				} else {
					total.answers[text]++
					total.answered = append(total.answered, answered{began, time.Now()})
				}
				mu.Unlock()
			}
		})
	}
	devtest.Until(t, time.Minute, "the load runs", func() bool { return sent.Load() > 100 })
	silent = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Since(last)
	}
	stop = func() loadCounts {
		before := sent.Load()
		devtest.Until(t, time.Minute, "the load saw the end", func() bool { return sent.Load() > before+100 })
		cancel()
		wg.Wait()
		return total
	}
	return stop, silent
}

// fetch returns the response of the server.
func fetch(ctx context.Context, client *http.Client, ask string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ask, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", resp.Status)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(body), `{"response":"`), "\"}\n"), err
}
