package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// service20 is one of the services of the property test.
type service20 struct {
	count, priority int
	word            string
	gone            bool
}

// spec is a job without a process.
func (s service20) spec(name string) string {
	return fmt.Sprintf(`job "@%s" {
  priority = %d
  update {
    min_healthy_time = "10ms"
    health_check     = "task_states"
  }
  group "g" {
    count = %d
    task "t" {
      driver = "mock_driver"
      logs {
        disabled = true
      }
      config {
        run_for = "10h"
      }
      env {
        WORD = %q
      }
      resources {
        cpu    = 5
        memory = 10
      }
    }
  }
}
`, name, s.priority, s.count, s.word)
}

// Whatever is edited: the plan says what the deploy does, Nomad says the same
// afterwards, a second deploy has nothing to do, and a rollback ends at the
// digests where it began. DROVER_SEED repeats a run.
func TestRandomEdits(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if text := os.Getenv("DROVER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("DROVER_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))

	const services = 20
	rounds := 2
	if devtest.Full() {
		rounds = 5
	}
	s := newSite(t)
	st := s.stack(t, map[string]string{"stack.hcl": ""})
	if err := os.MkdirAll(st.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	now := map[string]service20{}
	names := make([]string, services)
	for i := range names {
		names[i] = fmt.Sprintf("s%02d", i)
		now[names[i]] = service20{count: 1, priority: 50, word: "a"}
	}
	write := func() {
		config := "stack \"@\" {}\n"
		for i, name := range names {
			if now[name].gone {
				continue
			}
			after := ""
			if dep := i / 4; dep > 0 && !now[names[dep-1]].gone { // a tree
				after = fmt.Sprintf("  depends_on = [\"@%s\"]\n", names[dep-1])
			}
			config += fmt.Sprintf("service \"@%s\" {\n%s}\n", name, after)
			st.write(map[string]string{"@" + name + ".nomad.hcl": now[name].spec(name)})
		}
		st.write(map[string]string{"stack.hcl": config})
	}
	type planned struct {
		Services []struct {
			Service string
			Action  string
			Index   uint64 `json:"job_modify_index"`
		}
	}
	plan := func() map[string]string {
		t.Helper()
		var p planned
		out := st.want(0, "plan", ".", "-o", "json")
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		actions := map[string]string{}
		for _, svc := range p.Services {
			actions[svc.Service] = svc.Action
		}
		return actions
	}
	versions := func() map[string]uint64 {
		t.Helper()
		list, _, err := s.client.Jobs().PrefixList(st.id)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]uint64{}
		for _, j := range list {
			out[j.ID] = j.JobModifyIndex
		}
		return out
	}
	releases := record.OpenReleases(s.client, st.id, "default")
	digests := func() map[string]string {
		t.Helper()
		last, err := releases.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lines, err := releases.Services(t.Context(), last)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, l := range lines {
			if l.Spec != "" {
				out[l.Name] = l.Spec
			}
		}
		return out
	}

	write()
	// Two releases a round, and the first must still be there at the end.
	st.want(0, "deploy", ".", "--history-max", fmt.Sprint(2*rounds+1))
	first := digests()
	for round := range rounds {
		for range 1 + r.IntN(5) {
			name := names[r.IntN(services)]
			svc := now[name]
			switch r.IntN(5) {
			case 0:
				svc.count = r.IntN(3)
			case 1:
				svc.priority = 50 + r.IntN(3)
			case 2:
				svc.word = string(rune('a' + r.IntN(4)))
			case 3:
				svc.gone = !svc.gone
			case 4:
				svc.word, svc.count = string(rune('a'+r.IntN(4))), 1+r.IntN(2)
			}
			now[name] = svc
		}
		write()
		for _, name := range names {
			if now[name].gone {
				_ = os.Remove(filepath.Join(st.dir, st.id+name+".nomad.hcl"))
			}
		}
		actions, before := plan(), versions()
		st.want(0, "deploy", ".", "--prune")
		after := versions()
		for _, name := range names {
			id := st.id + name
			b, there := before[id]
			a, stays := after[id]
			is := "" // as the plan would call what Nomad shows
			switch {
			case there && !stays:
				is = "stop"
			case !there && stays:
				is = "create"
			case stays && a == b:
				is = "unchanged"
			case stays:
				is = "changed"
			}
			want := actions[id]
			if want == "in-place" || want == "replace" {
				want = "changed"
			}
			if is != want {
				t.Errorf("round %d: %s was planned as %q, and in Nomad it is %q", round, name, actions[id], is)
			}
		}
		st.want(0, "plan", ".", "--detailed-exitcode")
		contains(t, st.want(0, "deploy", "."), "unchanged")
		if again := versions(); !maps.Equal(after, again) {
			t.Errorf("round %d: the second deploy changed something: %v, %v", round, after, again)
		}

		// Another client changes a job: the plan finds it, and the deploy mends it.
		name := names[r.IntN(services)]
		job, _, err := s.client.Jobs().Info(st.id+name, nil)
		if now[name].gone || err != nil {
			continue
		}
		how := []string{"edited", "stopped", "purged"}[r.IntN(3)]
		switch how {
		case "edited":
			*job.Priority = 60
			_, _, err = s.client.Jobs().Register(job, nil)
		default:
			_, _, err = s.client.Jobs().Deregister(*job.ID, how == "purged", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		for service, action := range plan() {
			if changed := service == st.id+name; changed != (action != "unchanged") {
				t.Errorf("round %d: %s was %s; got %s planned as %q", round, name, how, service, action)
			}
		}
		st.want(0, "deploy", ".")
		st.want(0, "plan", ".", "--detailed-exitcode")
	}
	st.want(0, "rollback", ".", "1", "--prune")
	if got := digests(); !maps.Equal(got, first) {
		t.Errorf("after the rollback the digests are %v, were %v", got, first)
	}
}
