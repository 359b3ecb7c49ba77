package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
	"github.com/drover-nomad/drover/stack"
)

// recorder keeps the events of a verb.
type recorder struct{ events []Event }

func (r *recorder) add(e Event) { r.events = append(r.events, e) }

func (r *recorder) phases() []Phase {
	var out []Phase
	for _, e := range r.events {
		if e.Kind == KindPhase {
			out = append(out, e.Phase)
		}
	}
	return out
}

// end returns the last event, which is to be the only end.
func (r *recorder) end(t *testing.T) *End {
	t.Helper()
	n := 0
	for _, e := range r.events {
		if e.Kind == KindEnd {
			n++
		}
		if e.Time.IsZero() {
			t.Errorf("event %s has no time", e.Kind)
		}
	}
	if n != 1 || r.events[len(r.events)-1].Kind != KindEnd {
		t.Fatalf("got %d ends, want one, as the last of %d events", n, len(r.events))
	}
	return r.events[len(r.events)-1].End
}

func TestRunPhases_StopsAtTheFirstThatFails(t *testing.T) {
	names := []Phase{"one", "", "two", "three"}
	failure := errors.New("it failed")
	for fails := range len(names) + 1 {
		var ran []Phase
		var phases []phase
		for i, n := range names {
			phases = append(phases, phase{n, func(context.Context) error {
				ran = append(ran, n)
				if i == fails {
					return failure
				}
				return nil
			}})
		}
		var r recorder
		s := &stream{sink: r.add}
		err := runPhases(t.Context(), phases, s.emit)
		want := names[:min(fails+1, len(names))]
		if !slices.Equal(ran, want) {
			t.Errorf("failure in %d: ran %q, want %q", fails, ran, want)
		}
		if got, want := r.phases(), slices.DeleteFunc(slices.Clone(want), func(p Phase) bool { return p == "" }); !slices.Equal(got, want) {
			t.Errorf("failure in %d: reported %q, want %q", fails, got, want)
		}
		if (err != nil) != (fails < len(names)) {
			t.Errorf("failure in %d: got error %v", fails, err)
		}
	}
}

func TestRun_ReportsOneEnd(t *testing.T) {
	failed := Result{Halt: &release.Halt{Outcome: rollout.Failed}}
	failed.Result.Services = []rollout.ServiceResult{{Service: "web", Outcome: rollout.Failed}}
	other := errors.New("cannot read the stack")
	for name, c := range map[string]struct {
		verb    func(*End) error
		outcome rollout.Outcome
		err     error // of the end
		class   Class
	}{
		"unchanged":             {func(e *End) error { return e.outcome(Result{}) }, rollout.Unchanged, nil, ClassNone},
		"failed":                {func(e *End) error { return e.outcome(failed) }, rollout.Failed, nil, ClassOutcome},
		"refused":               {func(*End) error { return other }, "", other, ClassOther},
		"prerequisite":          {func(*End) error { return &PrerequisiteError{"edge", &OutcomeError{rollout.TimedOut}} }, rollout.TimedOut, &PrerequisiteError{}, ClassOutcome},
		"deployed, DNS is not":  {func(e *End) error { e.Outcome = CertificateFailed; return &CertificatesError{other} }, CertificateFailed, other, ClassOther},
		"the person said no":    {func(*End) error { return ErrDeclined }, "", ErrDeclined, ClassCancelled},
		"the context has ended": {func(*End) error { return context.Canceled }, "", context.Canceled, ClassCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			_, err := run(t.Context(), r.add, 0, func(_ context.Context, s *stream, end *End) error {
				s.warn("something")
				return c.verb(end)
			})
			end := r.end(t)
			if end.Outcome != c.outcome || (end.Err == nil) != (c.err == nil) || c.err != nil && !errors.Is(end.Err, c.err) && !is[*PrerequisiteError](end.Err) {
				t.Errorf("got end %q, %v; want %q, %v", end.Outcome, end.Err, c.outcome, c.err)
			}
			if got := ClassOf(err); got != c.class {
				t.Errorf("got class %d of %v, want %d", got, err, c.class)
			}
		})
	}
}

// stackDir writes a stack of one job.
func stackDir(t *testing.T, more string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"stack.hcl":     "stack \"shop\" {}\n" + more,
		"web.nomad.hcl": "job \"web\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"mock_driver\"\n    }\n  }\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestDeploy_EndsOnceWhereverItFails runs Deploy against a cluster that cannot be
// reached.
func TestDeploy_EndsOnceWhereverItFails(t *testing.T) {
	unreachable := errors.New("no cluster here")
	dial := func(context.Context, *stack.Target, bool) (nomad.Clients, error) {
		return nomad.Clients{}, unreachable
	}
	for name, c := range map[string]struct {
		deploy Deploy
		phases []Phase
		stack  string // that the end names
		class  Class
	}{
		"no stack":            {Deploy{Source: Source{Path: filepath.Join(t.TempDir(), "none")}}, []Phase{PhaseResolve}, "", ClassInvalid},
		"unknown environment": {Deploy{Source: Source{Path: stackDir(t, ""), Environment: "prod"}}, []Phase{PhaseResolve}, "", ClassInvalid},
		"certificate that no CA issues": {
			Deploy{Source: Source{Path: stackDir(t, "certificate \"public\" {\n  names = [\"localhost\"]\n}\n")}}, []Phase{PhaseResolve}, "shop", ClassInvalid,
		},
		"bad port for the CA": {
			Deploy{Source: Source{Path: stackDir(t, "")}, Home: Home{Environ: []string{ChallengeEnv + "=eighty"}}}, []Phase{PhaseResolve}, "shop", ClassInvalid,
		},
		"no cluster":                  {Deploy{Source: Source{Path: stackDir(t, "")}}, []Phase{PhaseResolve, PhaseConnect}, "shop", ClassOther},
		"no cluster, no certificates": {Deploy{Source: Source{Path: stackDir(t, "")}, NoCertificates: true}, []Phase{PhaseResolve, PhaseConnect}, "shop", ClassOther},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			c.deploy.Home.Dial, c.deploy.Events, c.deploy.Limits.Unreachable = dial, r.add, time.Millisecond
			_, err := c.deploy.Run(t.Context())
			end := r.end(t)
			if got := r.phases(); !slices.Equal(got, c.phases) {
				t.Errorf("got phases %q, want %q", got, c.phases)
			}
			if err == nil || end.Err == nil || end.Err.Error() != err.Error() || end.Stack != c.stack || end.Result != nil {
				t.Errorf("got %v and end %+v, want that error and stack %q", err, end, c.stack)
			}
			if got := ClassOf(err); got != c.class {
				t.Errorf("got class %d of %v, want %d", got, err, c.class)
			}
		})
	}
}

func TestRecordedVerbs_EndOnceWithoutACluster(t *testing.T) {
	unreachable := errors.New("no cluster here")
	for name, verb := range map[string]func(Recorded) func(context.Context) (Result, error){
		"Resume":   func(r Recorded) func(context.Context) (Result, error) { return (&Resume{Recorded: r}).Run },
		"Approve":  func(r Recorded) func(context.Context) (Result, error) { return (&Approve{r}).Run },
		"Abort":    func(r Recorded) func(context.Context) (Result, error) { return (&Abort{r}).Run },
		"Rollback": func(r Recorded) func(context.Context) (Result, error) { return (&Rollback{Recorded: r}).Run },
		"Redeploy": func(r Recorded) func(context.Context) (Result, error) { return (&Redeploy{Recorded: r}).Run },
		"Fire": func(r Recorded) func(context.Context) (Result, error) {
			return func(ctx context.Context) (Result, error) {
				_, err := (&Fire{Recorded: r, Name: "nightly"}).Run(ctx)
				return Result{}, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			home := Home{Dial: func(context.Context, *stack.Target, bool) (nomad.Clients, error) {
				return nomad.Clients{}, unreachable
			}}
			_, err := verb(Recorded{Home: home, Stack: "shop", Events: r.add})(t.Context())
			if end := r.end(t); !errors.Is(err, unreachable) || !errors.Is(end.Err, unreachable) {
				t.Errorf("got %v and end %+v, want %v", err, end, unreachable)
			}
		})
	}
}

func TestHome_Getenv(t *testing.T) {
	h := Home{Environ: []string{"A=1", "B=", "A=2=3", "C"}}
	for name, want := range map[string]string{"A": "2=3", "B": "", "C": "", "D": ""} {
		if got := h.Getenv(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
