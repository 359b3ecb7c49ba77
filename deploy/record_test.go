package deploy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/release/memstore"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/schedule"
	"github.com/drover-nomad/drover/secrets"
	"github.com/drover-nomad/drover/stack"
)

// inNomad keeps the record of the stack in Variables of the fake Nomad.
func (w *world) inNomad() {
	w.home.Backend.Releases, w.home.Backend.Secrets = nil, nil
}

// eachRecord runs f with a record in memory and with one in Nomad.
func eachRecord(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("in memory", func(t *testing.T) { f(t, newWorld(t)) })
	t.Run("in Nomad", func(t *testing.T) {
		w := newWorld(t)
		w.inNomad()
		f(t, w)
	})
}

func TestReadingVerbs_WithoutARelease(t *testing.T) {
	t.Parallel()
	for name, verb := range map[string]func(context.Context, *world) error{
		"history": func(ctx context.Context, w *world) error {
			_, err := History{Home: w.home, Stack: "shop"}.Run(ctx)
			return err
		},
		"show": func(ctx context.Context, w *world) error {
			_, err := Show{Home: w.home, Stack: "shop"}.Run(ctx)
			return err
		},
		"show a number": func(ctx context.Context, w *world) error {
			_, err := Show{Home: w.home, Stack: "shop", Release: 3}.Run(ctx)
			return err
		},
		"job spec": func(ctx context.Context, w *world) error {
			_, err := Show{Home: w.home, Stack: "shop"}.JobSpec(ctx, "web")
			return err
		},
		"diff": func(ctx context.Context, w *world) error {
			_, err := Diff{Home: w.home, Stack: "shop", From: 1}.Run(ctx)
			return err
		},
		"status": func(ctx context.Context, w *world) error {
			_, err := (&Status{Home: w.home, Source: Source{Path: "shop"}}).Run(ctx)
			return err
		},
		"logs": func(ctx context.Context, w *world) error {
			return Logs{Home: w.home, Source: Source{Path: "shop"}, Service: "web"}.Run(ctx)
		},
		"check": func(ctx context.Context, w *world) error {
			_, err := Check{Home: w.home, Source: Source{Path: "shop"}}.Run(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachRecord(t, func(t *testing.T, w *world) {
				err := verb(t.Context(), w)
				if !is[*NoReleaseError](err) || !errors.Is(err, record.ErrNoRelease) {
					t.Errorf("got %v, want a *NoReleaseError", err)
				}
			})
		})
	}
}

func TestHistoryAndShow(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		w.deploy("1")
		w.interrupt("2")
		history, err := History{Home: w.home, Stack: "shop"}.Run(t.Context())
		if err != nil || len(history.Releases) != 2 || history.Releases[0].Number != 2 || history.Holder != nil {
			t.Fatalf("got %+v, %v, want releases 2 and 1 without a holder", history, err)
		}
		shown, err := Show{Home: w.home, Stack: "shop"}.Run(t.Context())
		if err != nil || shown.Release.Number != 2 || len(shown.Services) != 2 || string(shown.Values) != "{}" {
			t.Errorf("got %+v, %v, want release 2 with two services and no values", shown, err)
		}
		spec, err := Show{Home: w.home, Stack: "shop", Release: 1}.JobSpec(t.Context(), "web")
		if err != nil || !strings.Contains(string(spec), `"version":"1"`) {
			t.Errorf("got spec %s, %v, want that of version 1", spec, err)
		}
		if _, err := (Show{Home: w.home, Stack: "shop"}).JobSpec(t.Context(), "db"); ClassOf(err) != ClassInvalid {
			t.Errorf("spec of an unknown service: got %v, want class %d", err, ClassInvalid)
		}
		_, err = Show{Home: w.home, Stack: "shop", Release: 9}.Run(t.Context())
		if !errors.Is(err, record.ErrNoRelease) || is[*NoReleaseError](err) {
			t.Errorf("an unknown number: got %v, want record.ErrNoRelease", err)
		}
		diff, err := Diff{Home: w.home, Stack: "shop", From: 1}.Run(t.Context())
		if err != nil || diff.To != 2 || len(diff.Services) != 2 {
			t.Errorf("got %+v, %v, want both services up to release 2", diff, err)
		}
	})
}

func TestStatus_ReadsTheRecord(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		w.deploy("1")
		v := Status{Home: w.home, Source: Source{Path: "shop"}}
		for range 2 { // it may be called repeatedly
			got, err := v.Run(t.Context())
			if err != nil || got.Release.Number != 1 || len(got.Services) != 2 || got.OK || got.Holder != nil {
				t.Fatalf("got %+v, %v, want release 1 and two services that are missing", got, err)
			}
		}
		one := Status{Home: w.home, Source: Source{Path: "shop", Services: []string{"web"}}}
		if got, err := one.Run(t.Context()); err != nil || len(got.Services) != 1 || got.Services[0].Status != rollout.StatusMissing {
			t.Errorf("got %+v, %v, want web, which is missing", got, err)
		}
		unknown := Status{Home: w.home, Source: Source{Path: "shop", Services: []string{"db"}}}
		if _, err := unknown.Run(t.Context()); ClassOf(err) != ClassInvalid {
			t.Errorf("an unknown service: got %v, want class %d", err, ClassInvalid)
		}
		if err := (Logs{Home: w.home, Source: Source{Path: "shop"}, Service: "db"}).Run(t.Context()); ClassOf(err) != ClassInvalid {
			t.Errorf("logs of an unknown service: got %v, want class %d", err, ClassInvalid)
		}
		if err := (Logs{Home: w.home, Source: Source{Path: "shop"}, Service: "web"}).Run(t.Context()); err == nil {
			t.Error("logs of a job that Nomad does not have: got no error")
		}
	})
	t.Run("reads the source without a release", func(t *testing.T) {
		w := newWorld(t)
		got, err := (&Status{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil || got.Release != nil || len(got.Services) != 2 {
			t.Errorf("got %+v, %v, want two services and no release", got, err)
		}
	})
	t.Run("explains a mistake in the source that is read instead", func(t *testing.T) {
		w := newWorld(t)
		w.write("web.nomad.hcl", "job {")
		_, err := (&Status{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if ClassOf(err) != ClassInvalid {
			t.Errorf("got %v, want class %d", err, ClassInvalid)
		}
	})
	t.Run("names the holder of the lock", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		w.lock()
		got, err := (&Status{Home: w.home, Source: Source{Path: "shop"}}).Run(t.Context())
		if err != nil || got.Holder == nil || got.Holder.User != "bob" {
			t.Errorf("got holder %+v, %v, want bob", got.Holder, err)
		}
	})
}

func TestList_ReadsAllStacks(t *testing.T) {
	w := newWorld(t)
	w.inNomad()
	if got, err := (List{Home: w.home}).Run(t.Context()); err != nil || got == nil || len(got) != 0 {
		t.Errorf("without a release: got %v, %v, want an empty list", got, err)
	}
	w.deploy("1")
	got, err := List{Home: w.home}.Run(t.Context())
	if err != nil || len(got) != 1 || got[0].Stack != "shop" {
		t.Errorf("got %+v, %v, want shop", got, err)
	}
	_, err = History{Home: w.home, Stack: "shop", Environment: "prod"}.Run(t.Context())
	var none *NoReleaseError
	if !errors.As(err, &none) || !slices.Equal(none.Others, []string{"shop/default"}) {
		t.Errorf("got %v, want a *NoReleaseError that names shop/default", err)
	}
	other := []record.ListedStack{{Stack: "other"}}
	w.home.Backend.Stacks = func(context.Context) ([]record.ListedStack, error) { return other, nil }
	if got, err := (List{Home: w.home}).Run(t.Context()); err != nil || len(got) != 1 || got[0].Stack != "other" {
		t.Errorf("of a backend: got %+v, %v, want its stack", got, err)
	}
	w.home.Backend.Stacks, w.nomad.deny = nil, "/v1/vars"
	if _, err := (List{Home: w.home}).Run(t.Context()); err == nil {
		t.Error("without permission: got no error")
	}
}

func TestDrift_ComparesWithTheRelease(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		if _, err := (Drift{Home: w.home, Stack: "shop"}).Run(t.Context()); !errors.Is(err, record.ErrNoRelease) {
			t.Errorf("without a release: got %v, want record.ErrNoRelease", err)
		}
		w.deploy("1")
		got, err := Drift{Home: w.home, Stack: "shop"}.Run(t.Context())
		if err != nil || got.Drifted || got.Release != 1 || len(got.Services) != 2 {
			t.Fatalf("got %+v, %v, want two services without drift", got, err)
		}
		w.cluster.Purge("web")
		if got, err = (Drift{Home: w.home, Stack: "shop"}).Run(t.Context()); err != nil || !got.Drifted || got.Differing() != 1 {
			t.Errorf("got %+v, %v, want one service that differs", got, err)
		}
	})
}

func TestChangedJobs_ComparesEveryStack(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		w.home.Backend.Stacks = func(context.Context) ([]record.ListedStack, error) {
			return []record.ListedStack{{Stack: "other", Environment: "default"}, {Stack: "shop", Environment: "default"}}, nil
		}
		if w.home.Backend.Releases != nil {
			w.home.Backend.Releases = func(name, env string) release.Store {
				if name == "other" {
					return memstore.New(name, env)
				}
				return w.store
			}
		}
		w.deploy("1")
		w.cluster.Purge("web")
		got, err := ChangedJobs{Home: w.home}.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := []ChangedStack{
			{Stack: "other", Environment: "default"},
			{Stack: "shop", Environment: "default", Release: 1, Jobs: []release.Drift{{Service: "web", JobID: "web", Kind: release.DriftMissing}}},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		w.cluster.Fail = func(request string) error {
			if request == "Job api" {
				return errors.New("scripted")
			}
			return nil
		}
		if got, err = (ChangedJobs{Home: w.home}).Run(t.Context()); len(got) != 1 || err == nil || err.Error() != "stack shop in environment default: scripted" {
			t.Errorf("a job that cannot be read: got %+v, %v, want stack other and an error that names stack shop", got, err)
		}
	})
}

func TestAdopt_Scenarios(t *testing.T) {
	t.Parallel()
	no := func(context.Context, *PlanResult) (bool, error) { return false, nil }
	broken := func(context.Context, *PlanResult) (bool, error) { return false, errors.New("no terminal") }
	for name, c := range map[string]struct {
		before  func(*world)
		confirm func(context.Context, *PlanResult) (bool, error)
		class   Class
		made    bool
	}{
		"records a job of another client":       {(*world).registerWeb, nil, ClassNone, true},
		"does nothing without a yes":            {(*world).registerWeb, no, ClassCancelled, false},
		"returns the error of the confirmation": {(*world).registerWeb, broken, ClassOther, false},
		"has nothing to do for its own jobs":    {func(w *world) { w.deploy("1") }, nil, ClassNone, false},
		"refuses beside an open release":        {func(w *world) { w.deploy("1"); w.interrupt("2") }, nil, ClassBusy, false},
		"refuses a job of another stack": {
			func(w *world) {
				w.registerWeb()
				w.store.OwnerOf = func(record.LiveJob) *record.Owner {
					return &record.Owner{Stack: "other", Environment: "prod", Release: 3}
				}
			}, nil, ClassInvalid, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.before(w)
			w.cluster.ResetLog()
			got, err := Adopt{Home: w.home, Source: Source{Path: w.dir}, Confirm: c.confirm}.Run(t.Context())
			if ClassOf(err) != c.class || (got.Release != nil) != c.made {
				t.Errorf("got release %+v and class %d of %v, want one: %v, and class %d", got.Release, ClassOf(err), err, c.made, c.class)
			}
			if log := w.cluster.Log(); len(log) > 0 {
				t.Errorf("wrote %q, want no job changed", log)
			}
		})
	}
}

func TestMove_Scenarios(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(*world)
		verb   Move
		class  Class
	}{
		"to another stack":       {nil, Move{ToStack: "store"}, ClassNone},
		"to another environment": {nil, Move{ToEnvironment: "prod"}, ClassNone},
		"refuses the same name":  {nil, Move{ToStack: "shop"}, ClassInvalid},
		"refuses a name that has releases": {func(w *world) {
			w.write("stack.hcl", "stack \"store\" {}\n")
			for _, job := range []string{"api", "web"} {
				w.cluster.Purge(job)
			}
			w.deploy("1")
		}, Move{ToStack: "store"}, ClassOther},
		"refuses with an open release": {func(w *world) { w.interrupt("2") }, Move{ToStack: "store"}, ClassOther},
	} {
		t.Run(name, func(t *testing.T) {
			eachRecord(t, func(t *testing.T, w *world) {
				w.deploy("1")
				if c.before != nil {
					c.before(w)
				}
				w.cluster.ResetLog()
				v := c.verb
				v.Home, v.Stack = w.home, "shop"
				got, err := v.Run(t.Context())
				if ClassOf(err) != c.class {
					t.Fatalf("got class %d of %v, want %d", ClassOf(err), err, c.class)
				}
				if log := w.cluster.Log(); len(log) > 0 {
					t.Errorf("wrote %q, want no job changed", log)
				}
				old, oldErr := History{Home: w.home, Stack: "shop"}.Run(t.Context())
				if c.class != ClassNone {
					if oldErr != nil || len(old.Releases) == 0 {
						t.Errorf("got %+v, %v under the old name, want its releases", old, oldErr)
					}
					return
				}
				if !is[*NoReleaseError](oldErr) {
					t.Errorf("got %+v, %v under the old name, want no release", old, oldErr)
				}
				now, err := History{Home: w.home, Stack: got.ToStack, Environment: got.ToEnvironment}.Run(t.Context())
				if err != nil || len(now.Releases) != 1 || got.Releases != 1 {
					t.Errorf("got %+v, %v under the new name, want one release", now, err)
				}
			})
		})
	}
}

func TestCheck_Runs(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			rw.WriteHeader(http.StatusTeapot)
		}
	}))
	t.Cleanup(server.Close)
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("stack.hcl", "stack \"shop\" {}\ncheck \"good\" {\n  url = \""+server.URL+"/ok\"\n}\ncheck \"bad\" {\n  url = \""+server.URL+"/bad\"\n}\n")
		for _, path := range []string{w.dir, "shop"} {
			if path == "shop" {
				w.deploy("1")
			}
			got, err := Check{Home: w.home, Source: Source{Path: path}}.Run(t.Context())
			if err != nil || len(got.Checks) != 2 || got.Failed() != 1 {
				t.Errorf("%s: got %+v, %v, want two checks of which one fails", path, got, err)
			}
			if got, err = (Check{Home: w.home, Source: Source{Path: path}, Name: "good"}).Run(t.Context()); err != nil || len(got.Checks) != 1 || got.Failed() != 0 {
				t.Errorf("%s: got %+v, %v, want the good check", path, got, err)
			}
			if _, err = (Check{Home: w.home, Source: Source{Path: path}, Name: "none"}).Run(t.Context()); ClassOf(err) != ClassInvalid {
				t.Errorf("%s: an unknown check: got %v, want class %d", path, err, ClassInvalid)
			}
		}
	})
}

func TestCheck_WithheldCredentials(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hunter2" {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("stack.hcl", "stack \"shop\" {}\ncheck \"login\" {\n  url = \""+server.URL+"\"\n  basic_auth {\n    username = \"ann\"\n    password = \"hunter2\"\n  }\n}\n")
		w.deploy("1")
		got, err := Check{Home: w.home, Source: Source{Path: w.dir}}.Run(t.Context())
		if err != nil || len(got.Checks) != 1 || got.Failed() != 0 {
			t.Errorf("with the source: got %+v, %v, want a good check", got, err)
		}
		got, err = Check{Home: w.home, Source: Source{Path: "shop"}}.Run(t.Context())
		if err != nil || len(got.Checks) != 1 || got.Checks[0].Problem != withheldProblem {
			t.Errorf("from the record: got %+v, %v, want %q", got, err, withheldProblem)
		}
		w.write("web.nomad.hcl", "job {")
		w.write("stack.hcl", "stack {")
		if _, err = (Check{Home: w.home, Source: Source{Path: w.dir, Environment: "default"}}).Run(t.Context()); err == nil {
			t.Error("with a source that cannot be read: got no error")
		}
	})
}

func TestCheck_PasswordIsASecretOfTheStack(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hunter2" {
			rw.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("stack.hcl", "stack \"shop\" {}\nsecret \"pw\" {}\ncheck \"login\" {\n  url = \""+server.URL+"\"\n  basic_auth {\n    username = \"ann\"\n    secret   = \"pw\"\n  }\n}\n")
		check := Check{Home: w.home, Source: Source{Path: w.dir}}
		if _, err := check.Run(t.Context()); !errors.Is(err, record.ErrNotFound) || !strings.Contains(err.Error(), "check login") {
			t.Errorf("without a value: got %v, want record.ErrNotFound and the name of the check", err)
		}
		w.secrets.Set("pw", "hunter2")
		if w.home.Backend.Secrets == nil {
			in := record.OpenSecrets(w.nomad.client(t), "shop", "default", nil)
			if _, err := in.Set(t.Context(), []*stack.Secret{{Name: "pw"}}, nil, "pw", secrets.NewValue("hunter2")); err != nil {
				t.Fatal(err)
			}
		}
		got, err := check.Run(t.Context())
		if err != nil || len(got.Checks) != 1 || got.Failed() != 0 {
			t.Errorf("got %+v, %v, want a good check", got, err)
		}
	})
}

func TestCheck_ReadsTheSourceWithRecordedValues(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close)
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("variables.hcl", "variable \"url\" {}\n")
		w.write("stack.hcl", "stack \"shop\" {}\ncheck \"up\" {\n  url = var.url\n}\n")
		check := Check{Home: w.home, Source: Source{Path: w.dir}}
		if _, err := check.Run(t.Context()); err == nil {
			t.Error("without a release: got no error, want one that names the variable")
		}
		v := w.deployVerb()
		v.Source.Vars = []string{"url=" + server.URL}
		if _, err := v.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.write("stack.hcl", "stack \"shop\" {}\ncheck \"added\" {\n  url = var.url\n}\n")
		got, err := check.Run(t.Context())
		if err != nil || len(got.Checks) != 1 || got.Checks[0].Name != "added" || got.Failed() != 0 {
			t.Errorf("got %+v, %v, want the check of the source, with the value of the release", got, err)
		}
		w.write("stack.hcl", "stack \"shop\" {}\ncheck \"added\" {\n  url = var.other\n}\n")
		if got, err = check.Run(t.Context()); err != nil || len(got.Checks) != 1 || got.Checks[0].Name != "up" {
			t.Errorf("a source that is wrong: got %+v, %v, want the check of the release", got, err)
		}
	})
}

func TestMove_WithoutARelease(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		if _, err := (Move{Home: w.home, Stack: "shop", ToStack: "store"}).Run(t.Context()); !is[*NoReleaseError](err) {
			t.Errorf("got %v, want a *NoReleaseError", err)
		}
	})
}

// A move that is interrupted before a write of the new record is finished by the same
// move, and nothing else changes the stack before that. Its secrets move too.
func TestMove_Interrupted(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"Copy", "Commit"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			w.write("stack.hcl", "stack \"shop\" {}\nservice \"api\" {}\nservice \"web\" {}\nsecret \"token\" {}\n")
			w.deploy("1")
			renamed := w.renamed.open("store", "default")
			broken := errors.New("scripted")
			renamed.store.Intercept = func(op string) error {
				if op == step {
					return broken
				}
				return nil
			}
			move := Move{Home: w.home, Stack: "shop", ToStack: "store"}
			if _, err := move.Run(t.Context()); !errors.Is(err, broken) {
				t.Fatalf("got %v, want the error of the store", err)
			}
			w.version("2")
			if _, err := w.deployVerb().Run(t.Context()); !is[*record.MovedError](err) {
				t.Errorf("a deploy meanwhile: got %v, want a *record.MovedError", err)
			}
			renamed.store.Intercept = nil
			got, err := move.Run(t.Context())
			if err != nil || got.Releases != 1 || step == "Copy" && !got.Secrets {
				t.Fatalf("got %+v, %v, want a release and its secrets to move", got, err)
			}
			if v, err := renamed.secrets.Item(t.Context(), "token"); err != nil || v.Reveal() == "" {
				t.Errorf("the secret under the new name: got %v, want its value", err)
			}
			if left, err := w.secrets.Any(t.Context()); left || err != nil {
				t.Errorf("secrets under the old name: got %v, %v, want none", left, err)
			}
		})
	}
}

// A move to a store of another kind moves nothing.
func TestMove_OtherStore(t *testing.T) {
	w := newWorld(t)
	w.deploy("1")
	inMemory := w.home.Backend.Releases
	w.home.Backend.Releases = func(name, env string) release.Store {
		if name == "shop" {
			return inMemory(name, env)
		}
		return release.InNomad(record.OpenReleases(w.nomad.client(t), name, env))
	}
	_, err := Move{Home: w.home, Stack: "shop", ToStack: "store"}.Run(t.Context())
	if !errors.Is(err, release.ErrOtherStore) {
		t.Errorf("got %v, want %v", err, release.ErrOtherStore)
	}
	w.wantState(1, record.Done)
}

// person answers every question with yes or no.
type person struct {
	yes   bool
	err   error
	asked int
}

func (p *person) Approve(context.Context, release.Approval) (bool, error) {
	p.asked++
	return p.yes, p.err
}

func (p *person) Prune(context.Context, []release.Change) (bool, error) {
	p.asked++
	return p.yes, p.err
}

func TestDeploy_AsksBeforeItPrunes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		person  *person
		prune   bool
		outcome rollout.Outcome
		class   Class
		running string
	}{
		"refuses without a person":      {nil, false, "", ClassInvalid, "api=1 web=1"},
		"prunes after a yes":            {&person{yes: true}, false, rollout.Deployed, ClassNone, "api=2"},
		"does nothing after a no":       {&person{}, false, "", ClassCancelled, "api=1 web=1"},
		"does nothing without answer":   {&person{err: errors.New("no terminal")}, false, "", ClassOther, "api=1 web=1"},
		"does not ask if it may anyway": {nil, true, rollout.Deployed, ClassNone, "api=2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.deploy("1")
			w.version("2")
			w.write("stack.hcl", "stack \"shop\" {}\n")
			w.remove("web.nomad.hcl")
			v := w.deployVerb()
			v.New.Prune = c.prune
			if c.person != nil {
				v.Person = c.person
			}
			_, err := v.Run(t.Context())
			w.wantEnd(err, c.outcome, c.class)
			if c.person != nil && c.person.asked != 1 {
				t.Errorf("asked %d times, want once", c.person.asked)
			}
			w.wantRunning(c.running)
		})
	}
}

func TestApprove_Waves(t *testing.T) {
	t.Parallel()
	t.Run("a release waits, and approve finishes it", func(t *testing.T) {
		w := newWorld(t)
		_, err := inWaves(w).Run(t.Context())
		w.wantEnd(err, rollout.AwaitApproval, ClassOutcome)
		w.wantRunning("api=1")
		w.events = nil
		_, err = (&Approve{w.recorded()}).Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		w.wantRunning("api=1 web=1")
	})
	t.Run("a person approves", func(t *testing.T) {
		w := newWorld(t)
		v := inWaves(w)
		v.Person = &person{yes: true}
		_, err := v.Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		w.wantRunning("api=1 web=1")
	})
}

// inWaves deploys web after an approval.
func inWaves(w *world) *Deploy {
	w.write("environments/default.hcl", "wave \"one\" {\n  services = [\"api\"]\n}\nwave \"two\" {\n  services = [\"web\"]\n  approve = true\n}\n")
	v := w.deployVerb()
	v.Source.Environment = "default"
	return v
}

func TestFire_RecordsTheRun(t *testing.T) {
	t.Parallel()
	t.Run("an unknown schedule", func(t *testing.T) {
		w := newWorld(t)
		_, err := (&Fire{Recorded: w.recorded(), Name: "nightly"}).Run(t.Context())
		w.wantEnd(err, "", ClassInvalid)
	})
	t.Run("what keeps it from its work", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		schedules := record.OpenSchedules(w.nomad.client(t), "shop", "default")
		if _, err := schedules.Change(t.Context(), "nightly", func(*record.Schedule) {}); err != nil {
			t.Fatal(err)
		}
		did, err := (&Fire{Recorded: w.recorded(), Name: "nightly", Unable: errors.New("no token")}).Run(t.Context())
		end := w.wantEnd(err, "error", ClassNone)
		if did.OK || did.Detail != "no token" || end.Schedule != "nightly" || end.Run == nil {
			t.Errorf("got run %+v and end %+v, want one that failed", did, end)
		}
		w.events = nil
		_, err = (&Fire{Recorded: w.recorded(), Name: "daily"}).Run(t.Context())
		if w.wantEnd(err, "", ClassInvalid); !strings.Contains(message(err), "there is nightly") {
			t.Errorf("got %v, want the schedule that there is", err)
		}
	})
}

// fire fires a schedule of the stack and returns the run, which has to be recorded.
func (w *world) fire(s stack.Schedule) record.Run {
	w.Helper()
	schedules := record.OpenSchedules(w.nomad.client(w.T), "shop", "default")
	if _, err := schedules.Change(w.Context(), s.Name, func(r *record.Schedule) { r.Schedule = s }); err != nil {
		w.Fatal(err)
	}
	w.events = nil
	did, err := (&Fire{Recorded: w.recorded(), Name: s.Name}).Run(w.Context())
	if err != nil {
		w.Fatalf("cannot fire schedule %s: %v", s.Name, err)
	}
	w.wantEnd(err, rollout.Outcome(did.Outcome), ClassNone)
	stored, err := schedules.Read(w.Context(), s.Name)
	if err != nil || len(stored.Runs) == 0 || stored.Runs[len(stored.Runs)-1].Outcome != did.Outcome {
		w.Errorf("got %+v, %v, want a record of run %+v", stored, err, did)
	}
	return did
}

func TestFire_RunsTheVerb(t *testing.T) {
	t.Parallel()
	nightly := stack.Schedule{Name: "nightly", Action: stack.ScheduleRedeploy, TimeZone: "UTC"}
	t.Run("redeploy", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		did := w.fire(nightly)
		if !did.OK || did.Outcome != string(rollout.Deployed) || did.Release != 2 || did.Base != 1 {
			t.Errorf("got run %+v, want release 2 from release 1", did)
		}
		w.wantState(2, record.Done)
		if last, _ := w.store.Last(t.Context()); last.Message != "schedule nightly" || last.Schedule != "nightly" {
			t.Errorf("got release %+v, want one of schedule nightly", last)
		}
	})
	t.Run("redeploy that fails, once", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		w.fail("web", "1", rollout.Failed)
		if did := w.fire(nightly); did.OK || did.Outcome != string(rollout.Failed) || did.Release != 2 {
			t.Errorf("got run %+v, want release 2 to fail", did)
		}
		if did := w.fire(nightly); !did.Skipped || !strings.Contains(did.Detail, "the same failed") {
			t.Errorf("got run %+v, want one that is skipped", did)
		}
	})
	t.Run("deploy", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		w.cluster.Purge("web")
		s := nightly
		s.Action = stack.ScheduleDeploy
		if did := w.fire(s); !did.OK || did.Release != 2 {
			t.Errorf("got run %+v, want release 2", did)
		}
		w.wantRunning("api=1 web=1")
	})
	t.Run("check", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		s := nightly
		s.Action = stack.ScheduleCheck
		if did := w.fire(s); !did.OK || did.Outcome != schedule.InSync {
			t.Errorf("got run %+v, want in-sync", did)
		}
		w.cluster.Purge("web")
		if did := w.fire(s); did.OK || did.Outcome != schedule.Drifted || !strings.Contains(did.Detail, "web") {
			t.Errorf("got run %+v, want drift of web", did)
		}
	})
	t.Run("an unknown action", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		s := nightly
		s.Action = "dance"
		if did := w.fire(s); did.OK || did.Outcome != "error" || !strings.Contains(did.Detail, "dance") {
			t.Errorf("got run %+v, want an error", did)
		}
	})
	t.Run("a wave that needs an approval", func(t *testing.T) {
		w := newWorld(t)
		if _, err := inWaves(w).Run(t.Context()); ClassOf(err) != ClassOutcome {
			t.Fatal(err)
		}
		if _, err := (&Approve{Recorded: w.recorded()}).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if did := w.fire(nightly); did.OK || did.Base != 0 || !strings.Contains(did.Detail, "waits for an approval") {
			t.Errorf("got run %+v, want one that needs an approval", did)
		}
		s := nightly
		s.SkipApproval = true
		if did := w.fire(s); !did.OK {
			t.Errorf("got run %+v, want one that skips the approval", did)
		}
	})
	t.Run("an interrupted release of the schedule", func(t *testing.T) {
		w := newWorld(t)
		w.deploy("1")
		w.cluster.Follow = func(context.Context, *api.Job) rollout.ServiceResult {
			return rollout.ServiceResult{Outcome: rollout.Unreachable}
		}
		if did := w.fire(nightly); did.OK || did.Outcome != string(rollout.Unreachable) {
			t.Errorf("got run %+v, want unreachable", did)
		}
		w.cluster.Follow = nil
		did := w.fire(nightly)
		if !did.OK || did.Release != 2 || !strings.Contains(did.Detail, "resumed release 2") {
			t.Errorf("got run %+v, want one that resumes release 2", did)
		}
		w.wantState(2, record.Done)
	})
}

func TestDeploy_Secrets(t *testing.T) {
	t.Parallel()
	eachRecord(t, func(t *testing.T, w *world) {
		w.write("stack.hcl", "stack \"shop\" {}\nsecret \"key\" {}\nservice \"api\" {}\nservice \"web\" {\n  secrets = [\"key\"]\n}\n")
		p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil || p.Plan.Secrets() == nil || p.SecretsHidden {
			t.Fatalf("got %+v, %v, want a plan that generates a secret", p, err)
		}
		_, err = w.deployVerb().Run(t.Context())
		w.wantEnd(err, rollout.Deployed, ClassNone)
		i := slices.IndexFunc(w.events, func(e Event) bool { return e.Kind == KindSecrets })
		if i < 0 || !slices.Equal(w.events[i].Secrets.Made.Secrets, []string{"key"}) || !slices.Equal(w.events[i].Secrets.Jobs, []string{"web"}) {
			t.Errorf("got events %+v, want one for secret key of job web", w.events)
		}
	})
	t.Run("a plan shows no value that it may not read", func(t *testing.T) {
		w := newWorld(t)
		w.write("stack.hcl", "stack \"shop\" {}\nsecret \"key\" {}\nservice \"api\" {}\nservice \"web\" {\n  secrets = [\"key\"]\n}\n")
		w.home.Backend.Secrets, w.nomad.deny = nil, "/v1/var/"
		p, err := (&Plan{Home: w.home, Source: Source{Path: w.dir}}).Run(t.Context())
		if err != nil || !p.SecretsHidden {
			t.Errorf("got %+v, %v, want secrets that are hidden", p, err)
		}
	})
}

// remove removes a file of the stack.
func (w *world) remove(name string) {
	w.Helper()
	if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
		w.Fatal(err)
	}
}
