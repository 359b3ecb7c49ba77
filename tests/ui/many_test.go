package ui_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/ui"
)

// many is a stack of 200 services, which no cluster of a test could run.
type many struct {
	*ui.Cluster
	failing atomic.Int64 // index of the service that is not healthy
}

const services = 200

func (m *many) Status(context.Context, string, string) (deploy.StatusResult, error) {
	out := deploy.StatusResult{Stack: "big", Environment: "prod", Release: m.release()}
	for i := range services {
		name := fmt.Sprintf("service-%03d", i)
		out.Services = append(out.Services, rollout.ServiceStatus{Service: name, JobID: name, Status: "running", Healthy: 1, Desired: 1, OK: int64(i) != m.failing.Load()})
	}
	return out, nil
}

func (m *many) release() *record.Release {
	return &record.Release{Number: 1, Stack: "big", Environment: "prod", State: record.Done, Total: services}
}

func (m *many) Show(context.Context, string, string, int) (deploy.ShowResult, error) {
	out := deploy.ShowResult{Release: m.release()}
	for i := range services {
		l := record.Service{Name: fmt.Sprintf("service-%03d", i), JobID: "j", Spec: "s", Change: record.ChangeUpdate}
		if i > 0 {
			l.DependsOn = []string{fmt.Sprintf("service-%03d", i/4)}
		}
		out.Services = append(out.Services, l)
	}
	return out, nil
}

// TestPage_ManyServices changes the state of services of a stack of 200, and measures how
// long the browser takes to show that, and how long its longest pause is.
func TestPage_ManyServices(t *testing.T) {
	t.Parallel()
	devtest.NeedsServers(t)
	source := &many{Cluster: &ui.Cluster{}}
	source.failing.Store(-1)
	var handler *ui.Server
	server := httptest.NewUnstartedServer(nil)
	handler = ui.New(ui.Options{Source: source, Address: server.Listener.Addr().String(), Interval: 200 * time.Millisecond})
	server.Config.Handler = handler
	server.Start()
	t.Cleanup(func() { handler.Close(); server.Close() })

	s := &site{T: t, url: handler.URL("/s/big/prod"), browser: newBrowser(t), axe: fetchAxe(t)}
	began := time.Now()
	s.run(chromedp.Navigate(s.url), chromedp.WaitVisible(chromedp.CSS("svg")))
	s.shows("200 services")
	t.Logf("shown after %s", time.Since(began).Round(time.Millisecond))
	s.run(chromedp.Evaluate[chromedp.Void](`window.pause = 0; new PerformanceObserver((l) => { for (const e of l.getEntries()) window.pause = Math.max(window.pause, e.duration); }).observe({type: "longtask"})`))
	for i := range 5 {
		source.failing.Store(int64(i * 40))
		s.shows("Not healthy: 1 of 200 services", fmt.Sprintf("✗ service-%03d", i*40))
	}
	pause := value(s, chromedp.Evaluate[float64](`window.pause`))
	t.Logf("longest pause: %.0f ms", pause)
	if pause > 1500 {
		t.Errorf("the page stood still for %.0f ms, want less than 1500", pause)
	}
	s.run(chromedp.Evaluate[chromedp.Void](s.axe + ";0"))
	s.accessible("/s/big/prod", "light")
}
