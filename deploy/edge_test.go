package deploy

import (
	"slices"
	"testing"

	"github.com/drover-nomad/drover/rollout"
)

// withEdge are the phases of a deploy whose stack an edge serves.
var withEdge = slices.Insert(slices.Clone(deployPhases), 5, PhaseEdge, PhaseDNS, PhaseCertificates, PhaseServed, PhaseController)

func TestDeploy_WithAnEdge(t *testing.T) {
	t.Parallel()
	t.Run("routes need nothing but the edge", func(t *testing.T) {
		w := newWorld(t)
		w.nomad.running = []string{"edge"}
		w.write("web.nomad.hcl", "job \"web\" {\n  meta {\n    version = \"1\"\n  }\n  group \"g\" {\n    service {\n      name = \"web\"\n      tags = [\"drover.route=shop.example.org/\"]\n    }\n    task \"t\" {\n      driver = \"mock_driver\"\n    }\n  }\n}\n")
		v := w.deployVerb()
		v.NoCertificates = false
		_, err := v.Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		if got := w.phases(); !slices.Equal(got, withEdge) {
			t.Errorf("got phases %q, want %q", got, withEdge)
		}
		w.wantRunning("api=1 web=1")
	})
	t.Run("a CA out of reach does not stop the rollout", func(t *testing.T) {
		w := newWorld(t)
		w.nomad.running = []string{"edge"}
		w.home.Environ = []string{DirectoryEnv + "=https://127.0.0.1:1/directory"}
		w.write("stack.hcl", "stack \"shop\" {}\ncertificate \"public\" {\n  names = [\"www.example.org\"]\n}\n")
		v := w.deployVerb()
		v.NoCertificates, v.NoCheck = false, true
		_, err := v.Run(t.Context())
		w.wantEnd(err, CertificateFailed, ClassOther)
		if got, want := w.phases(), withEdge[:len(withEdge)-1]; !slices.Equal(got, want) {
			t.Errorf("got phases %q, want %q", got, want)
		}
		w.wantRunning("api=1 web=1")
	})
}

func TestDeploy_MissingVolumes(t *testing.T) {
	w := newWorld(t)
	w.write("web.nomad.hcl", "job \"web\" {\n  group \"g\" {\n    volume \"data\" {\n      type   = \"host\"\n      source = \"data\"\n    }\n    task \"t\" {\n      driver = \"mock_driver\"\n      volume_mount {\n        volume      = \"data\"\n        destination = \"/data\"\n      }\n    }\n  }\n}\n")
	p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
	if err != nil || len(p.Volumes) != 1 {
		t.Errorf("got %+v, %v, want a plan with one missing volume", p, err)
	}
	_, err = w.deployVerb().Run(t.Context())
	w.wantEnd(err, "", ClassOther)
	if !is[*MissingVolumesError](err) || err.Error() == "" {
		t.Errorf("got %v, want a *MissingVolumesError", err)
	}
	if got, want := w.phases(), deployPhases[:4]; !slices.Equal(got, want) {
		t.Errorf("got phases %q, want %q", got, want)
	}
	w.wantRunning("")
}
