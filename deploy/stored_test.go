package deploy

import (
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/rollout"
)

// TestDeploy_MissingCertificate: a task whose template reads a certificate that does
// not exist would wait without a message.
func TestDeploy_MissingCertificate(t *testing.T) {
	t.Run("the edge that ships", func(t *testing.T) {
		w := newWorld(t)
		v := w.deployVerb()
		v.Source = Source{Path: "edge", Vars: []string{`certificates=["public", "cloud.example.org"]`}}
		_, err := v.Run(t.Context())
		for _, want := range []string{"task haproxy of job edge reads", "certificate public", "certificate cloud.example.org", "the ACME account's thumbprint", "run `drover cert prepare STACK`"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
		}
		w.wantRunning("")
	})
	t.Run("any job", func(t *testing.T) {
		w := newWorld(t)
		read := func(text string) {
			w.write("web.nomad.hcl", "job \"web\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"mock_driver\"\n      template {\n        destination = \"secrets/a.pem\"\n        data = <<EOT\n"+text+"\nEOT\n      }\n    }\n  }\n}\n")
		}
		read(`{{ with nomadVar "drover/certs/mail" }}{{ .bundle }}{{ end }}`)
		w.nomad.variables.Put(&api.Variable{Path: "drover/certs/mail-2"})
		_, err := w.deployVerb().Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "task t of job web reads certificate mail,") {
			t.Errorf("got %v, want that the certificate does not exist", err)
		}
		w.nomad.variables.Put(&api.Variable{Path: "drover/certs/mail"})
		w.events = nil
		_, err = w.deployVerb().Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		w.nomad.variables.Delete("drover/certs/mail")
		read(`{{ if nomadVarExists "drover/certs/mail" }}{{ with nomadVar "drover/certs/mail" }}{{ .bundle }}{{ end }}{{ end }}`)
		w.events = nil
		_, err = w.deployVerb().Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
	})
}
