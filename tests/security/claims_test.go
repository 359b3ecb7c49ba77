package security

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/edge"
)

// control runs a controller with the rights of one until stop is called. It returns the
// address of its metrics.
func (s *site) control(t *testing.T) (metrics string, stop func()) {
	t.Helper()
	p := acl.Scope{Tenants: []string{evil}}.Nomad(acl.Controller)
	p.Name, p.Job = "drover-controller-of-test", ""
	if err := acl.PutNomadPolicy(t.Context(), s.nomad, p); err != nil {
		t.Fatal(err)
	}
	token, _, err := s.nomad.ACLTokens().Create(&api.ACLToken{Type: "client", Policies: []string{p.Name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	config := s.NomadConfig()
	config.SecretID = token.SecretID
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		err := controller.Run(ctx, controller.Config{
			Backend: acme.NomadVariables(client), Nomad: client, Consul: s.consul, Listener: l, LookEvery: 2 * time.Second,
			Finder: &edge.Finder{Nomad: client, Consul: s.consul}, Events: func(e acme.Event) { t.Log(e.Kind, e.Text) },
		})
		if err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// Two services of one namespace, and two namespaces without a table, claim one route,
// one host and one name of a service.
func TestClaims(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	attacker := s.as(t, acl.Deployer, evil)
	for _, c := range []struct{ stack, file, route string }{
		{"edge", "haproxy/local/haproxy.cfg", "#: %s/ "},
		{"edge-nginx", "nginx/local/nginx.conf", "server_name %s;"},
	} {
		t.Run(c.stack, func(t *testing.T) { s.testClaims(t, attacker, c.stack, c.file, c.route) })
	}
}

// answering is a service that says its name.
func answering(t *testing.T, name string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	t.Cleanup(server.Close)
	return server
}

// at is a job whose service is registered with the address of a server of this test.
func at(server *httptest.Server, job *api.Job) *api.Job {
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	of := job.TaskGroups[0].Services[0]
	of.Address, of.PortLabel = "127.0.0.1", port
	return job
}

// request sends a request to the edge, and returns the status and the body of the answer.
func (s *site) request(host string) string {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Loopback()+":9443")
		},
	}}
	res, err := client.Get("https://" + host + "/")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		body = nil
	}
	return fmt.Sprintf("%d %s", res.StatusCode, body)
}

// maintained are the backends of HAProxy, or the hosts of nginx, that a configuration
// has in maintenance.
func maintained(configuration string) (closed []string) {
	place := ""
	for line := range strings.Lines(configuration) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 1 && (fields[0] == "backend" || fields[0] == "server_name"):
			place = strings.TrimSuffix(fields[1], ";")
		case strings.Contains(line, "@maintenance;"), strings.Contains(line, "maintenance.html") && fields[0] == "http-request":
			closed = append(closed, place)
		}
	}
	return closed
}

func (s *site) testClaims(t *testing.T, attacker *api.Client, stack, file, route string) {
	route = strings.ReplaceAll(route, "%s", "%s.example.org")
	victim := fmt.Sprintf(route, "victim")
	ours, theirs := answering(t, "ours"), answering(t, "theirs")
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(refusing.Close)
	s.run(t, s.nomad, at(ours, service("default", "web", "web", []string{"drover.route=victim.example.org/"}, nil)))
	s.run(t, s.nomad, at(ours, service("default", "mail", "mail", []string{"drover.route=mail.example.org/", "drover.weight=100 service helper"}, nil)))
	s.run(t, s.nomad, at(ours, service("default", "helper", "helper", nil, nil)))
	s.run(t, s.nomad, at(ours, service("default", "hidden", "hidden", nil, nil)))
	s.run(t, s.nomad, at(ours, service("default", "guarded", "guarded", []string{"drover.route=guarded.example.org/", "drover.forward-auth=authn/"}, nil)))
	s.run(t, s.nomad, at(refusing, service("default", "authn", "authn", nil, nil)))
	config := s.deployStack(t, stack, file, `authenticators=["authn"]`)
	metrics, stop := s.control(t)
	ledger := func() (items api.VariableItems) {
		v, _, err := s.nomad.Variables().Peek("nomad/jobs/edge/edge", nil)
		if err != nil {
			t.Fatal(err)
		}
		if v != nil {
			items = v.Items
		}
		return items
	}
	until(t, "the controller has noted the victim's route", func() bool { return strings.Contains(ledger()["web"], "victim.example.org/") })
	t.Cleanup(func() {
		for _, path := range []string{"nomad/jobs/edge/edge", "drover/controller/claims"} {
			_, _ = s.nomad.Variables().Delete(path, nil)
		}
	})

	// Maintenance is in the variable of the decisions. It outlives them, and their words
	// put nothing into maintenance.
	finder := edge.Finder{Nomad: s.nomad, Consul: s.consul}
	if err := finder.SetMaintenance(t.Context(), "shop/prod", []string{"evil-web"}, true); err != nil {
		t.Fatal(err)
	}
	s.run(t, s.nomad, service("default", "aaa", "aaa", []string{"drover.route=victim.example.org/", "drover.route=aaa.example.org/"}, nil))
	s.run(t, attacker, at(theirs, service(evil, "evil-web", "evil-web", []string{
		"drover.route=victim.example.org/login/", "drover.redirect=victim.example.org/pay 301 https://evil.example.org/", "drover.route=evil.example.org/",
	}, nil)))
	s.run(t, attacker, at(theirs, service(evil, "borrower", "borrower", []string{"drover.route=borrower.example.org/", "drover.weight=100 service hidden"}, nil)))
	s.run(t, attacker, at(theirs, service(evil, "also-web", "web", []string{"drover.allow=192.0.2.66/32"}, nil)))
	s.run(t, attacker, at(theirs, service(evil, "also-helper", "helper", nil, nil)))
	s.run(t, attacker, at(theirs, service(evil, "also-authn", "authn", nil, nil)))
	s.run(t, s.nomad, service("default", "spoiler", "web", []string{"drover.alow=192.0.2.0/24"}, nil))
	until(t, "the edge has the other hosts", func() bool {
		text := config()
		return strings.Contains(text, fmt.Sprintf(route, "evil")) && strings.Contains(text, fmt.Sprintf(route, "aaa")) && strings.Contains(text, victim)
	})
	options := edge.Options{Store: acme.NewStore(acme.NomadVariables(s.nomad))}
	var report *edge.Report
	until(t, "the edge has loaded it", func() bool {
		var err error
		report, err = edge.Look(t.Context(), s.nomad, s.consul, options)
		return err == nil && len(report.Instances) == 1 && report.Instances[0].Current && len(report.Problems) == 7
	})
	text := config()
	for _, stolen := range []string{"victim.example.org/login", "victim.example.org/pay", "192.0.2.66"} {
		if strings.Contains(text, stolen) {
			t.Errorf("the edge has %s", stolen)
		}
	}
	if closed := maintained(text); len(closed) != 1 || !strings.HasPrefix(closed[0], "evil") {
		t.Errorf("got %q in maintenance, want the service evil-web, whose host is evil.example.org, alone", closed)
	}
	for _, name := range []string{"web", "authn"} {
		if !slices.ContainsFunc(report.Problems, func(p edge.Problem) bool {
			return p.Service == name && strings.HasPrefix(p.Message, "Instances of another namespace have this name too")
		}) {
			t.Errorf("got problems %+v, want one of the instances of %s in another namespace", report.Problems, name)
		}
	}
	// Neither gets requests of the other, by whatever name.
	for host, want := range map[string]string{"victim": "200 ours", "mail": "200 ours", "borrower": "200 theirs", "guarded": "401 "} {
		until(t, fmt.Sprintf("40 requests to %s get %q", host, want), func() bool {
			for range 40 {
				if s.request(host+".example.org") != want {
					return false
				}
			}
			return true
		})
	}
	// Registrations of the same ID at other nodes, one with an address that is none, do not
	// make the files of the edge invalid.
	var twin *capi.ServiceEntry
	allocs, _, err := s.nomad.Jobs().Allocations("web", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range s.instances(t, "web") {
		if slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool { return strings.Contains(i.Service.ID, a.ID) }) {
			twin = i
		}
	}
	if twin == nil {
		t.Fatal("no instance of web")
	}
	for node, address := range map[string]string{"elsewhere": twin.Service.Address, "nowhere": oddAddresses[1]} {
		same := &capi.AgentService{ID: twin.Service.ID, Service: "web", Address: address, Port: twin.Service.Port, Tags: twin.Service.Tags}
		if _, err := s.consul.Catalog().Register(&capi.CatalogRegistration{Node: node, Address: "127.0.0.1", Service: same}, nil); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = s.consul.Catalog().Deregister(&capi.CatalogDeregistration{Node: node}, nil) }()
	}
	s.run(t, s.nomad, at(ours, service("default", "later", "later", []string{"drover.route=later.example.org/"}, nil)))
	until(t, "a service that comes after it is served", func() bool { return s.request("later.example.org") == "200 ours" })
	if got := s.request("victim.example.org"); got != "200 ours" {
		t.Errorf("with an ID at two nodes: got %q, want 200 ours", got)
	}
	for _, node := range []string{"elsewhere", "nowhere"} {
		if _, err := s.consul.Catalog().Deregister(&capi.CatalogDeregistration{Node: node}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct{ service, message string }{
		{"aaa", "victim.example.org/ belongs to service web of namespace default since"},
		{"evil-web", "The host victim.example.org belongs to service web of namespace default since"},
		{"web", "The service belongs to namespace default, and an instance of namespace evil has the tag"},
		{"web", "There is no tag drover.alow"},
	} {
		if !slices.ContainsFunc(report.Problems, func(p edge.Problem) bool {
			return p.Service == want.service && p.Costs == edge.CostsTag && strings.HasPrefix(p.Message, want.message)
		}) {
			t.Errorf("got problems %+v, want one of %s: %s", report.Problems, want.service, want.message)
		}
	}
	if i := slices.IndexFunc(report.Routes, func(r edge.RouteStatus) bool { return r.From == "victim.example.org/" }); i < 0 || report.Routes[i].Service != "web" {
		t.Errorf("got routes %+v, want victim.example.org/ to web", report.Routes)
	}
	res, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	exported, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`drover_edge_tags_refused{service="aaa"} 1`, `drover_edge_tags_refused{service="evil-web"} 2`, "drover_edge_hosts_shared 0"} {
		if !strings.Contains(string(exported), line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	review, err := edge.Finder{Nomad: s.nomad, Consul: s.consul}.Review(t.Context())
	if err != nil || !review.Running || !review.Decided || review.Tenants || review.Namespaces < 2 || len(review.Problems) != 7 {
		t.Errorf("got review %+v and error %v", review, err)
	}

	// Without a controller, a new host waits, and what is served stays.
	stop()
	s.run(t, attacker, service(evil, "evil-new", "evil-new", []string{"drover.route=new.example.org/"}, nil))
	until(t, "the edge has seen the new tag", func() bool {
		report, err := edge.Look(t.Context(), s.nomad, s.consul, options)
		return err == nil && len(report.Instances) == 1 && report.Instances[0].Current && slices.ContainsFunc(report.Problems, func(p edge.Problem) bool {
			return p.Service == "evil-new" && strings.HasPrefix(p.Message, "The controller has not allowed it yet")
		})
	})
	if text := config(); strings.Contains(text, "new.example.org") || !strings.Contains(text, victim) {
		t.Errorf("the edge has a route that was not allowed, or lost one that was:\n%s", text)
	}

	// The claim ends with the job.
	_, stop = s.control(t)
	defer stop()
	for _, job := range []string{"web", "spoiler"} {
		if _, _, err := s.nomad.Jobs().Deregister(job, true, nil); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the other service has the route", func() bool { return strings.Contains(ledger()["aaa"], "http victim.example.org/") })
	until(t, "the edge has the new host", func() bool { return strings.Contains(config(), fmt.Sprintf(route, "new")) })
}
