package record

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/secrets"
)

func TestSecretOwner_Item(t *testing.T) {
	t.Parallel()
	for _, o := range []SecretOwner{{"shop", "prod"}, {"my.shop", "eu/1"}, {"a~b", "c d"}} {
		got, ok := parseOwner(o.item())
		if !ok || got != o {
			t.Errorf("%+v is written as %q and read as %+v, %v", o, o.item(), got, ok)
		}
	}
	for _, bad := range []string{"", "shop", "/prod", "shop/", "a/b/c"} {
		if o, ok := parseOwner(bad); ok {
			t.Errorf("%q is read as %+v", bad, o)
		}
	}
	err := (&OwnerError{JobID: "web", Owner: SecretOwner{"shop", "prod"}, Want: SecretOwner{"shop", "production"}}).Error()
	if want := "drover move shop -e prod --to-env production"; !strings.Contains(err, want) {
		t.Errorf("%q does not offer %q", err, want)
	}
}

// Another environment of the stack, or another stack, writes neither its master
// nor the variable of a job that is not its own.
func testSecretOwner(t *testing.T, c *api.Client, rt *tamper) {
	jobs := []render.Job{job("owner-a", "jwt")}
	if _, err := OpenSecrets(c, "owner", "prod", nil).Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	before := items(t, c, "nomad/jobs/owner-a")
	for _, other := range []*Secrets{OpenSecrets(c, "owner", "production", nil), OpenSecrets(c, "shop", "prod", nil)} {
		rt.writes = 0
		_, err := other.Ensure(t.Context(), specs, jobs)
		var owned *OwnerError
		if !errors.As(err, &owned) || owned.Owner != (SecretOwner{"owner", "prod"}) || owned.Want != other.owner() {
			t.Errorf("ensure of %s: %v", other.owner(), err)
		}
		if _, err := other.Rotate(t.Context(), specs, jobs, "jwt"); !errors.As(err, &owned) {
			t.Errorf("rotate of %s: %v", other.owner(), err)
		}
		if _, err := other.Set(t.Context(), specs, jobs, "jwt", secrets.NewValue("theirs")); !errors.As(err, &owned) {
			t.Errorf("set of %s: %v", other.owner(), err)
		}
		if err := other.Purge(t.Context(), jobs); err != nil {
			t.Errorf("purge of %s: %v", other.owner(), err)
		}
		if rt.writes != 0 || !maps.Equal(items(t, c, "nomad/jobs/owner-a"), before) || items(t, c, other.Path()) != nil {
			t.Errorf("%s wrote %d times", other.owner(), rt.writes)
		}
	}
}

// The variable of an older drover names no owner. It belongs to the stack whose
// record names the job.
func testUnmarkedVariable(t *testing.T, c *api.Client, rt *tamper) {
	s := OpenSecrets(c, "unmarked", "prod", nil)
	jobs := []render.Job{job("unmarked-a", "jwt")}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	old := items(t, c, "nomad/jobs/unmarked-a")
	delete(old, ownerItem)
	if _, _, err := c.Variables().Update(&api.Variable{Path: "nomad/jobs/unmarked-a", Items: old}, nil); err != nil {
		t.Fatal(err)
	}
	head := &Release{Number: 1, Stack: "unmarked", Environment: "prod", State: Done, Owner: "x"}
	j, err := OpenReleases(c, "unmarked", "prod").Create(t.Context(), head, []Service{{Name: "a", JobID: "unmarked-a", Spec: "s", Step: StepDone, Index: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var owned *OwnerError
	if _, err := OpenSecrets(c, "unmarked", "production", nil).Ensure(t.Context(), specs, jobs); !errors.As(err, &owned) || owned.Owner != s.owner() {
		t.Errorf("ensure of another environment: %v", err)
	}
	rt.writes = 0
	if _, err := OpenSecrets(c, "unmarked", "prod", nil).Ensure(t.Context(), specs, jobs); err != nil || rt.writes != 0 {
		t.Errorf("unchanged: %d writes, %v", rt.writes, err)
	}
	if _, err := OpenSecrets(c, "unmarked", "prod", nil).Rotate(t.Context(), specs, jobs, "jwt"); err != nil {
		t.Fatal(err)
	}
	if got := items(t, c, "nomad/jobs/unmarked-a")[ownerItem]; got != "unmarked/prod" {
		t.Errorf("the owner after a rotation is %q", got)
	}
}

func testMoveSecrets(t *testing.T, c *api.Client, rt *tamper) {
	s, to := OpenSecrets(c, "move", "prod", nil), OpenSecrets(c, "move", "production", nil)
	jobs := []render.Job{job("move-a", "jwt"), job("move-b"), job("move-c", "mount")}
	if _, err := s.Ensure(t.Context(), specs, jobs); err != nil {
		t.Fatal(err)
	}
	master, a := items(t, c, s.Path()), items(t, c, "nomad/jobs/move-a")
	a[ownerItem] = "move/production"

	// The target has other secrets: nothing is written.
	if _, err := to.Ensure(t.Context(), specs, nil); err != nil {
		t.Fatal(err)
	}
	rt.writes = 0
	if err := s.Move(t.Context(), to, jobs); err == nil || rt.writes != 0 {
		t.Errorf("over other secrets: %d writes, %v", rt.writes, err)
	}
	if err := to.Purge(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// Interrupted when the new master is written, and repeated.
	ctx, cancel := context.WithCancel(t.Context())
	rt.before = func(*http.Request) {
		rt.mu.Lock()
		defer rt.mu.Unlock()
		rt.busy = 1000
		cancel()
	}
	if err := s.Move(ctx, to, jobs); err == nil {
		t.Fatal("Nomad was busy after the first write, and Move returned no error")
	}
	rt.mu.Lock()
	rt.busy = 0
	rt.mu.Unlock()
	rt.lose = true // which is no failure
	if err := s.Move(t.Context(), to, jobs); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(items(t, c, to.Path()), master) || items(t, c, s.Path()) != nil {
		t.Error("the master was not moved")
	}
	if got := items(t, c, "nomad/jobs/move-a"); !maps.Equal(got, a) {
		t.Errorf("the variable of the job is %v, want %v", got, a)
	}
	rt.writes = 0
	if _, err := to.Ensure(t.Context(), specs, jobs); err != nil || rt.writes != 0 {
		t.Errorf("after the move: %d writes, %v", rt.writes, err)
	}
	if err := s.Move(t.Context(), to, jobs); err != nil || rt.writes != 0 {
		t.Errorf("repeated: %d writes, %v", rt.writes, err)
	}
}
