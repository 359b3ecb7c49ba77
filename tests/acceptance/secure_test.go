package acceptance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// secured is a cluster with ACLs and mutual TLS.
type secured struct {
	*site
	consul *capi.Client
}

// TestSecured tests processes that run for long or in the cluster, each with only its
// own policy. The commands are tested in cmd/cli/testdata/secure.
func TestSecured(t *testing.T) {
	t.Parallel()
	dev := devtest.Cluster(t, devcluster.Options{Secure: true})
	s := &secured{site: siteOn(t, dev, dev.BinDir())}
	var err error
	if s.consul, err = capi.NewClient(dev.ConsulConfig()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T, *secured){
		"ScheduleByItsPolicy":   scheduleByItsPolicy,
		"ControllerByItsPolicy": controllerByItsPolicy,
		"TokenGoneMidway":       tokenGoneMidway,
		"TokenExpiresMidway":    tokenExpiresMidway,
		"OthersSeeWhoDeploys":   othersSeeWhoDeploys,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// as is the stack in the hands of who has just these policies.
func (s *secured) as(t *testing.T, st *stack, policies ...string) (*stack, *api.ACLToken) {
	t.Helper()
	return s.asFor(t, st, 0, policies...)
}

// asFor is as, until Nomad's token expires; 0 is never.
func (s *secured) asFor(t *testing.T, st *stack, ttl time.Duration, policies ...string) (*stack, *api.ACLToken) {
	t.Helper()
	n, _, err := s.client.ACLTokens().Create(&api.ACLToken{Type: "client", Policies: policies, ExpirationTTL: ttl}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := s.consul.ACL().TokenCreate(&capi.ACLToken{Policies: []*capi.ACLTokenPolicyLink{{Name: acl.Scope{}.Consul(acl.Reader).Name}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	site, other := *st.site, *st
	site.env = append(slices.Clone(site.env), "NOMAD_TOKEN="+n.SecretID, "CONSUL_HTTP_TOKEN="+c.SecretID)
	other.site = &site
	return &other, n
}

// checked is a spec whose service Consul has to find passing.
func checked(name, command string) string {
	return replaced(spec(name, 1, command, ""), "    task \"t\"", "    service {\n      name = \"@"+name+"\"\n      check {\n        type     = \"script\"\n        command  = \"/bin/true\"\n        interval = \"1s\"\n        timeout  = \"1s\"\n        task     = \"t\"\n      }\n    }\n    task \"t\"")
}

// A schedule fires by Nomad's own clock, logs in with the identity of its job,
// sees in Consul what it waits for, and can do nothing to other stacks.
func scheduleByItsPolicy(t *testing.T, s *secured) {
	st := s.stack(t, map[string]string{
		"stack.hcl":      "stack \"@\" {}\nservice \"@web\" {\n  secrets = [\"word\"]\n}\nsecret \"word\" {\n  type = \"random\"\n}\n",
		"@web.nomad.hcl": checked("web", sleeps),
		"environments/prod.hcl": "drover_driver \"raw_exec\" {\n  path = \"" + s.drover + "\"\n  env = {\n    CONSUL_HTTP_ADDR = \"$${meta.consul_http_addr}\"\n  }\n}\n" +
			"schedule \"often\" {\n  crons  = [\"*/5 * * * * * *\"]\n  action = \"redeploy\"\n}\n" +
			"schedule \"look\" {\n  crons  = [\"0 0 1 1 *\"]\n  action = \"check\"\n}\n",
	})
	deployer, _ := s.as(t, st, acl.Scope{}.Nomad(acl.Deployer).Name)
	deployer.want(0, "deploy", ".", "-e", "prod")
	// Without a token that may write policies, the error names what is needed.
	contains(t, deployer.want(10, "schedule", "apply", ".", "-e", "prod"), "nomad acl policy apply -namespace default -job drover-"+st.id+"-prod-often", "nomad acl binding-rule create -auth-method drover")
	contains(t, st.want(0, "schedule", "apply", ".", "-e", "prod"), "drover-"+st.id+"-prod-often: ACL policy written", "often: registered", "look: registered")
	run := st.lastIs("often", "deployed")
	contains(t, deployer.want(0, "schedule", "pause", ".", "often", "-e", "prod"), "often: paused")
	if run.Release < 2 {
		t.Errorf("it made release %d", run.Release)
	}
	look := func() {
		t.Helper()
		out := ""
		// The schedule "often" may have fired once more before the pause.
		until(t, "no other run is running", func() bool {
			out = deployer.want(0, "schedule", "run", ".", "look", "-e", "prod")
			return !strings.Contains(out, " is running")
		})
		contains(t, out, "in-sync")
	}
	look()

	// The policy allows only what the schedule needs.
	policy := "drover-" + st.id + "-prod-look"
	limited, _ := s.as(t, st, policy)
	limited.want(0, "history", st.id, "-e", "prod")
	limited.want(0, "secrets", "list", ".", "-e", "prod")
	st.write(map[string]string{"environments/staging.hcl": "variables {}\n"})
	limited.want(10, "secrets", "list", ".", "-e", "staging")
	limited.want(10, "schedule", "apply", ".", "-e", "prod")
	other := s.stack(t, map[string]string{"stack.hcl": "stack \"" + st.id + "two\" {}\nservice \"@two\" {}\n", "@two.nomad.hcl": spec("two", 1, sleeps, ""), "environments/prod.hcl": "variables {}\n"})
	other, _ = s.as(t, other, policy)
	other.want(10, "deploy", ".")
	other.want(10, "deploy", ".", "-e", "prod")

	// A job that may not log in reports it in the history. The next run succeeds after
	// the policy is written again.
	if err := acl.RemoveNomadPolicy(t.Context(), s.client, policy+"-none"); err != nil {
		t.Fatal(err)
	}
	rules, _, err := s.client.ACLBindingRules().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, stub := range rules {
		if rule, _, err := s.client.ACLBindingRules().Get(stub.ID, nil); err == nil && rule.BindName == policy {
			if _, err := s.client.ACLBindingRules().Delete(rule.ID, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	contains(t, deployer.want(1, "schedule", "run", ".", "look", "-e", "prod"), "error", "logging in to Nomad with the job's identity", "drover schedule apply")
	st.want(0, "schedule", "apply", ".", "-e", "prod")
	look()

	// The policies are removed with the schedules.
	st.write(map[string]string{"environments/prod.hcl": "variables {}\n"})
	contains(t, st.want(0, "schedule", "apply", ".", "-e", "prod"), "often: removed", "look: removed")
	policies, _, err := s.client.ACLPolicies().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range policies {
		if strings.HasPrefix(p.Name, "drover-"+st.id) {
			t.Errorf("policy %s was not removed", p.Name)
		}
	}
}

// The controller runs with the policy that is attached to its job. It takes its lock
// and reports that a job was changed.
func controllerByItsPolicy(t *testing.T, s *secured) {
	st := s.stack(t, map[string]string{"@web.nomad.hcl": replaced(spec("web", 1, sleeps, ""), "  update {", "  update {\n    auto_revert = false")})
	st.want(0, "deploy", ".")
	n := 0
	if _, _, err := s.client.Jobs().Scale(st.id+"web", "g", &n, "gone", false, nil, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _, _ = s.client.Jobs().Deregister("drover-controller", true, nil) })
	st.want(0, "deploy", "drover", "-e", "dev", "-var", "drover_binary="+s.drover)
	drifted := fmt.Sprintf(`drover_stack_drift{stack=%q,environment="default"} 1`, filepath.Base(st.dir))
	scrape := func() (all string) {
		entries, _, err := s.consul.Health().Service("drover-controller", "", true, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all += get(t.Context(), fmt.Sprintf("http://%s:%d/metrics", e.Service.Address, e.Service.Port))
		}
		return all
	}
	var seen string
	until(t, "the metric "+drifted, func() bool {
		seen = scrape()
		return strings.Contains(seen, drifted)
	})
	if strings.Contains(seen, "ermission denied") {
		t.Error(seen)
	}
	// They come when all lists were read.
	for _, line := range []string{
		fmt.Sprintf(`drover_release_state{stack=%q,environment="default",release="1",state="deployed"} 1`, filepath.Base(st.dir)),
		fmt.Sprintf(`drover_service_allocations{stack=%q,environment="default",target="",release="1",service=%q,state="running"} 0`, filepath.Base(st.dir), st.id+"web"),
	} {
		until(t, "the metric "+line, func() bool { return strings.Contains(scrape(), line) })
	}
	limited, _ := s.as(t, st, acl.Scope{}.Nomad(acl.Controller).Name)
	limited.want(0, "cert", "list")
	limited.want(10, "secrets", "list", ".")
	limited.want(10, "deploy", ".")
}

func get(ctx context.Context, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// twoInOrder returns a stack whose second service is submitted when the first has been
// healthy for the time while.
func twoInOrder(while string) map[string]string {
	return map[string]string{
		"stack.hcl":    "stack \"@\" {}\nservice \"@a\" {}\nservice \"@b\" {\n  depends_on = [\"@a\"]\n}\n",
		"@a.nomad.hcl": replaced(checked("a", sleeps), `min_healthy_time  = "1s"`, `min_healthy_time  = "`+while+`"`, `"1m"`, `"3m"`, `"2m"`, `"4m"`),
		"@b.nomad.hcl": checked("b", sleeps),
	}
}

// resumes checks a release whose token became invalid while it ran: the output names
// the cause, the release is open, and resume finishes it with another token.
func (s *secured) resumes(t *testing.T, st *stack, out string, token *api.ACLToken) {
	t.Helper()
	contains(t, out, "refuses the token", "drover resume")
	if strings.Contains(out, token.SecretID) {
		t.Error("the output contains the token")
	}
	if _, _, err := s.client.Jobs().Info(st.id+"b", nil); err == nil {
		t.Error("b was submitted without a token")
	}
	contains(t, st.want(11, "deploy", ".", "--lock-wait", "1m"), "release 1", "interrupted", "drover resume")
	contains(t, st.want(0, "resume", "."), "deployed")
	contains(t, st.want(0, "history", "."), "deployed")
	st.want(0, "status", ".")
	contains(t, st.want(0, "unlock", "."), ": not locked")
}

// The token of a deploy is deleted while it waits.
func tokenGoneMidway(t *testing.T, s *secured) {
	st := s.stack(t, twoInOrder("20s")) // the deploy ends when the token is deleted
	doomed, token := s.as(t, st, acl.Scope{}.Nomad(acl.Deployer).Name)
	gone := make(chan error, 1)
	go func() {
		for {
			if _, _, err := s.client.Jobs().Info(st.id+"a", nil); err == nil {
				_, err = s.client.ACLTokens().Delete(token.AccessorID, nil)
				gone <- err
				return
			}
			if err := pause(t.Context()); err != nil {
				gone <- err
				return
			}
		}
	}()
	began := time.Now()
	out := doomed.want(10, "deploy", ".")
	if err := <-gone; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the deploy ended after %s, want less than a minute", took)
	}
	s.resumes(t, st, out, token)
}

// The token of a deploy expires while it waits, as tokens of pipelines do. The shortest
// lifetime in Nomad is a minute (acl.token_min_expiration_ttl).
func tokenExpiresMidway(t *testing.T, s *secured) {
	st := s.stack(t, twoInOrder("80s"))
	doomed, token := s.asFor(t, st, time.Minute, acl.Scope{}.Nomad(acl.Deployer).Name)
	out := doomed.want(10, "deploy", ".")
	if late := time.Since(*token.ExpirationTime); late < 0 || late > time.Minute {
		t.Errorf("the deploy ended %s after the token expired, want up to a minute", late)
	}
	contains(t, doomed.want(10, "status", "."), "refuses the token", "set NOMAD_TOKEN to one")
	s.resumes(t, st, out, token)
}

// Nomad shows locks to management tokens only. Other tokens still see the holder in the
// record, and a lock whose holder is dead counts as free.
func othersSeeWhoDeploys(t *testing.T, s *secured) {
	st := s.stack(t, twoInOrder("1m")) // far longer than the commands below take
	ann, _ := s.as(t, st, acl.Scope{}.Nomad(acl.Deployer).Name)
	bob, _ := s.as(t, st, acl.Scope{}.Nomad(acl.Deployer).Name)
	reader, _ := s.as(t, st, acl.Scope{}.Nomad(acl.Reader).Name)
	done := make(chan string, 1)
	go func() {
		defer close(done)
		out, code := ann.run(s.drover, "deploy", ".")
		done <- fmt.Sprint(code, " ", out)
	}()
	until(t, "a is submitted", func() bool {
		_, _, err := s.client.Jobs().Info(st.id+"a", nil)
		return err == nil
	})
	for name, who := range map[string]*stack{"reader": reader, "deployer": bob} {
		if out, _ := who.run(s.drover, "status", "."); !strings.Contains(out, "release 1 is running: ") || strings.Contains(out, "interrupted") {
			t.Errorf("got status for %s:\n%s\nwant that release 1 is running", name, out)
		}
		contains(t, who.want(0, "history", "."), "running")
	}
	contains(t, bob.want(11, "deploy", "."), "is being changed by", "drover deploy")
	contains(t, bob.want(10, "unlock", ".", "--force"), "The lock is held by", "management token")
	if out := <-done; !strings.HasPrefix(out, "0 ") {
		t.Fatal(out)
	}
	contains(t, bob.want(0, "unlock", "."), ": not locked")
	contains(t, reader.want(0, "status", "."), "release 1, deployed")

	// The lock of a holder that was killed.
	text := `{"user":"ghost","host":"h","pid":7,"command":"drover deploy","since":"2026-01-01T00:00:00Z"}`
	ghost := &api.Variable{Path: "drover/stacks/" + st.id + "/default/lock", Items: api.VariableItems{"_layout": "1", "holder": text}, Lock: &api.VariableLock{TTL: "10s", LockDelay: "1s"}}
	if _, _, err := s.client.Variables().AcquireLock(ghost, nil); err != nil {
		t.Fatal(err)
	}
	contains(t, bob.want(2, "unlock", "."), "The lock is held by ghost@h")
	contains(t, bob.want(0, "redeploy", ".", "--lock-wait", "2m"), "ghost@h", "2 deployed")
	contains(t, bob.want(0, "unlock", "."), ": not locked")
}
