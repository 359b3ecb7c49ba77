package security

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/controller"
	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
)

// A deployer of one stack asks for records whose provider takes the token of the
// process that makes them, or runs a program in it. The token reaches no server, and
// the program does not run: neither in the controller nor in an operator's command.
func confusedDeputy(t *testing.T, s *site) {
	const token = "a-token-of-the-operator"
	var (
		mu   sync.Mutex
		sent []string
	)
	attacker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for name, values := range r.Header {
			sent = append(sent, name+": "+strings.Join(values, ","))
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(attacker.Close)
	program := filepath.Join(t.TempDir(), "program")
	ran := program + ".ran"
	devtest.Script(t, program, "#!/bin/sh\n: >"+ran+"\n")
	deployer := s.as(t, acl.Deployer, "default", "evil")
	for env, o := range map[string]dns.Options{
		"token":   {Provider: dns.ProviderPowerDNS, Server: attacker.URL, CredentialEnv: "NOMAD_TOKEN"},
		"file":    {Provider: dns.ProviderPowerDNS, Server: attacker.URL, CredentialFile: "/etc/hostname"},
		"program": {Provider: dns.ProviderExec, Command: []string{program}},
	} {
		w := &dns.Wanted{Owner: "evil/" + env, Zones: []string{env + ".example.org"}, Policy: dns.Sync, Options: o,
			Records: []dns.Record{{Name: "www." + env + ".example.org", Type: "A", Values: []string{"192.0.2.1"}}}}
		if _, err := (dns.DesiredRecords{Client: deployer}).Put(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	getenv := func(name string) string {
		if name == "NOMAD_TOKEN" {
			return token
		}
		return ""
	}
	caught := func(where string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if len(sent) > 0 {
			t.Errorf("%s sent to the attacker: %q", where, sent)
		}
		if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s ran the attacker's program", where)
		}
	}

	var warnings []string
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- controller.Run(ctx, controller.Config{
			Backend: acme.NomadVariables(s.nomad), Nomad: s.as(t, acl.Controller, "default"), Getenv: getenv, LookEvery: time.Second,
			Events: func(e acme.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == "warning" && strings.Contains(e.Text, "stack evil/") {
					warnings = append(warnings, e.Text)
				}
			},
		})
	}()
	until(t, "the controller has looked at the three stacks", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(warnings) >= 3
	})
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, w := range warnings {
		if !strings.Contains(w, "only the operator can give") {
			t.Errorf("got warning %q, want that only the operator can give it", w)
		}
	}
	caught("the controller")

	store := acme.NomadVariables(s.as(t, acl.Deployer, "default"))
	i := &deploy.Issuing{
		Home: &deploy.Home{Environ: []string{"NOMAD_TOKEN=" + token}}, Store: store, NoCheck: true, Timeout: time.Minute, Events: func(acme.Event) {},
		Issuers: []acme.Issuer{{Name: "ca", Directory: "https://127.0.0.1:1/directory"}},
	}
	err := i.With(t.Context(), func(ctx context.Context, m *acme.Manager) error {
		if _, err := m.Apply(ctx, acme.Spec{Name: "wild", Names: []string{"*.token.example.org"}, Issuers: []string{"ca"}}); err != nil {
			t.Fatal(err)
		}
		_, err := m.Reconcile(ctx, "wild")
		return err
	})
	if !errors.Is(err, acme.ErrElsewhere) {
		t.Errorf("got %v, want that the controller answers", err)
	}
	caught("the command")
}

// A second stack has a certificate of the same name: it does not replace the names
// of the first one's.
func takesACertificate(t *testing.T, s *site) {
	store := acme.NewStore(acme.NomadVariables(s.as(t, acl.Deployer, "default")))
	m := acme.NewManager(acme.Config{Store: store})
	defer m.Close()
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "theirs", Owner: "victim/prod", Names: []string{"victim.example.org"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "theirs", Owner: "attacker/prod", Names: []string{"attacker.example.org"}}); err == nil {
		t.Error("got no error, want that the certificate belongs to another stack")
	}
	o, err := store.Get(t.Context(), "theirs")
	if err != nil || o.Spec.Names[0] != "victim.example.org" {
		t.Errorf("got names %q, %v, want those of the victim", o.Spec.Names, err)
	}
}
