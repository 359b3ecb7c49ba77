package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

func TestStackName(t *testing.T) {
	dir := stackDir(t, "")
	for arg, want := range map[string]string{
		"gone": "gone", dir: "shop", filepath.Join(dir, "web.nomad.hcl"): "web", "edge": "edge",
	} {
		if got, err := StackName(arg); got != want || err != nil {
			t.Errorf("StackName(%q) = %q, %v, want %q", arg, got, err, want)
		}
	}
	if got, err := StackName("no/such/stack"); ClassOf(err) != ClassInvalid {
		t.Errorf("a path that leads nowhere: got %q, %v, want class %d", got, err, ClassInvalid)
	}
}

func TestEnvironmentName(t *testing.T) {
	for arg, want := range map[string]string{"": "default", "prod": "prod", "prod.hcl": "prod", "some/where/prod.hcl": "prod", "some/where/prod": "prod"} {
		if got := EnvironmentName(arg); got != want {
			t.Errorf("EnvironmentName(%q) = %q, want %q", arg, got, want)
		}
	}
}

func TestSource_LoadRefusesWhatIsNoStack(t *testing.T) {
	for _, path := range []string{"nosuch", "no/such", filepath.Join(t.TempDir(), "none")} {
		s := Source{Path: path}
		if _, err := s.Load(t.Context()); ClassOf(err) != ClassInvalid || s.Exists() {
			t.Errorf("%s: got %v, exists %v, want class %d", path, err, s.Exists(), ClassInvalid)
		}
	}
	shipped := Source{Path: "edge"}
	if !shipped.Exists() {
		t.Error("stack edge, which ships with drover, does not exist")
	}
}

func TestCA_Issuer(t *testing.T) {
	none := func(string) string { return "" }
	file := filepath.Join(t.TempDir(), "ca.pem")
	root, _, err := pki.NewCA("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(pki.EncodeCertificate(root.Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	process := func(name string) string {
		return map[string]string{DirectoryEnv: "https://ca.test/d", CAEnv: file}[name]
	}
	for name, c := range map[string]struct {
		ca     CA
		getenv func(string) string
		want   string // name of the issuer, "" for none
		class  Class
	}{
		"nothing":                        {CA{}, none, "", ClassNone},
		"staging":                        {CA{Staging: true}, none, acme.IssuerStaging, ClassNone},
		"a directory":                    {CA{Directory: "https://ca.test/directory"}, none, "ca.test", ClassNone},
		"of the process":                 {CA{}, func(name string) string { return map[string]string{DirectoryEnv: "https://ca.test/d"}[name] }, "ca.test", ClassNone},
		"a CA, no directory":             {CA{File: "ca.pem"}, none, "", ClassInvalid},
		"staging and directory":          {CA{Staging: true, Directory: "https://ca.test/d"}, none, "", ClassInvalid},
		"no URL":                         {CA{Directory: "ca"}, none, "", ClassInvalid},
		"a directory, CA of the process": {CA{Directory: "https://other.test/d"}, process, "other.test", ClassNone},
		"a CA, directory of the process": {CA{File: file}, process, "ca.test", ClassNone},
		"staging, CA of the process":     {CA{Staging: true}, process, acme.IssuerStaging, ClassNone},
		"no such file":                   {CA{Directory: "https://ca.test/d", File: filepath.Join(t.TempDir(), "ca.pem")}, none, "", ClassInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.ca.Issuer(c.getenv)
			if ClassOf(err) != c.class || (got == nil) != (c.want == "") || got != nil && got.Name != c.want {
				t.Errorf("got %+v, %v, want %q and class %d", got, err, c.want, c.class)
			}
			if strings.Contains(name, "of the process") && got != nil && c.getenv(CAEnv) != "" && (got.CA == "") != c.ca.Staging {
				t.Errorf("got the CA %q", got.CA)
			}
		})
	}
}

func TestCertError_Class(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		class Class
	}{
		"none":                   {nil, ClassNone},
		"cancelled":              {context.Canceled, ClassCancelled},
		"a mistake in a spec":    {&acme.SpecError{}, ClassInvalid},
		"a mistake in an issuer": {&acme.IssuerError{Kind: acme.KindConfig, Err: errors.New("no key")}, ClassInvalid},
		"a CA out of reach":      {&acme.IssuerError{Err: errors.New("no answer")}, ClassOther},
		"another process":        {acme.ErrLocked, ClassOther},
		"another error":          {errors.New("other"), ClassOther},
	} {
		if got := CertError(c.err); ClassOf(got) != c.class || (got == nil) != (c.err == nil) {
			t.Errorf("%s: got %v of class %d, want %d", name, got, ClassOf(got), c.class)
		}
	}
}

func TestErrors_Text(t *testing.T) {
	cause := errors.New("no route")
	head := &record.Release{Number: 4, State: record.Done}
	for want, err := range map[string]error{
		"release 4 is deployed, but its DNS records could not be updated: no route":              &SettleError{head, cause},
		"release 4 is paused, but not all of its deployments in Nomad: no route; pause it again": &PauseError{head, cause},
		"cannot deploy stack edge, which has to run first: outcome: failed":                      &PrerequisiteError{"edge", &OutcomeError{rollout.Failed}},
		"no route": &CertificatesError{cause},
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if errors.Unwrap(err) == nil {
			t.Errorf("%q has no cause", want)
		}
	}
	spared := &SparedError{[]release.ForeignJob{{JobID: "web", Owner: &record.Owner{Stack: "other", Environment: "prod", Release: 3}}}}
	if got := ClassOf(spared); got != ClassInvalid || spared.Error() == "" {
		t.Errorf("got class %d of %v, want %d", got, spared, ClassInvalid)
	}
}

func TestDeploy_WithoutCertificatesToLookAfter(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		v := w.deployVerb()
		v.NoCertificates = false
		for range 2 { // the second changes nothing
			w.events = nil
			if _, err := v.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if end := w.end(t); end.Err != nil || !end.Outcome.OK() {
				t.Errorf("got end %+v, want a good one", end)
			}
		}
	})
}

func TestDestroy_WhatAStackWithoutAReleaseHas(t *testing.T) {
	w := newWorld(t)
	schedules := record.OpenSchedules(w.nomad.client(t), "shop", "default")
	if _, err := schedules.Change(t.Context(), "nightly", func(s *record.Schedule) { s.JobID = "drover-nightly" }); err != nil {
		t.Fatal(err)
	}
	_, err := Destroy{Home: w.home, Stack: "shop", PurgeSecrets: true, Events: w.add}.Run(t.Context())
	w.wantEnd(err, "", ClassNone)
	if left, err := schedules.List(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("got schedules %v, %v, want none", left, err)
	}
	var removed []string
	for _, e := range w.events {
		if e.Kind == KindRemoved {
			removed = append(removed, e.Object.What)
		}
	}
	if len(removed) != 2 || removed[0] != ObjectSchedule || removed[1] != ObjectSecrets {
		t.Errorf("removed %q, want the schedule and the secrets", removed)
	}
}
