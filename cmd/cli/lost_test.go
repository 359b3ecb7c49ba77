package cli

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// Every verb ends as usual if Nomad does one of its writes and the answer is lost, or
// is an error of a proxy.
func TestLostAnswersOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	slots := make(chan struct{}, 4)
	tests := map[string]func(*testing.T, []string){}
	for _, verb := range lostVerbs() {
		tests[verb.name] = func(t *testing.T, env []string) {
			step := 19 // odd: answers are lost and wrong in turn
			if verb.few {
				step = 5
			}
			atWrites(t, 1+len(verb.name)%3, step, slots, func(t *testing.T, n int, program string) bool { return lostAt(t, env, verb, n, program) })
		}
	}
	together(t, env, tests)
}

// lostVerb is a command of which the answer to one write is lost.
type lostVerb struct {
	name string
	few  bool // writes
	// begin leads to where the command begins; run is the command.
	begin func(*world)
	run   func(*world) []string
	code  int // of the command
	check func(*world)
}

func lostVerbs() []lostVerb {
	stack := func(w *world, value string, more ...svc) {
		w.write(append([]svc{{name: "a", value: value}, {name: "b", value: value, deps: []string{"a"}}}, more...)...)
		w.withSecret("a")
	}
	first := func(w *world) {
		stack(w, "1", svc{name: "c", value: "1"})
		w.drover(exitOK, "deploy", w.dir, "--prune")
	}
	second := func(w *world) { stack(w, "2", svc{name: "d", value: "2"}) }
	values := func(want map[string]string) func(*world) {
		return func(w *world) {
			w.Helper()
			for _, name := range []string{"a", "b", "c", "d"} {
				if got := w.current(name); got != want[name] {
					w.Errorf("%s runs %q, want %q", name, got, want[name])
				}
			}
		}
	}
	one, two := map[string]string{"a": "1", "b": "1", "c": "1"}, map[string]string{"a": "2", "b": "2", "d": "2"}
	// interrupted leaves release 2 open after its n-th write.
	interrupted := func(w *world, n int) {
		first(w)
		second(w)
		k := &killer{n: n}
		if out, code := k.run(w.command(k.serve(w.T, w.env), "deploy", w.dir, "--prune")); code != -1 {
			w.Fatalf("it was not killed: %s", out)
		}
		w.drover(exitOK, "unlock", w.name, "--force")
	}
	ended := func(number int, state record.State, then func(*world)) func(*world) {
		return func(w *world) {
			w.Helper()
			last, err := w.releases().Last(w.Context())
			if err != nil || last.Number != number || last.State != state {
				w.Errorf("the release is %+v, %v, want %d, %s", last, err, number, state)
			}
			then(w)
		}
	}
	nightly := func(w *world, blocks string) {
		text := "drover_driver \"raw_exec\" {\n  path = \"/usr/bin/drover\"\n}\n" + blocks
		if err := os.MkdirAll(w.dir+"/environments", 0o700); err != nil {
			w.Fatal(err)
		}
		if err := os.WriteFile(w.dir+"/environments/default.hcl", []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	const block = "schedule \"NAME\" {\n  crons = [\"0 3 1 1 *\"]\n  action = \"check\"\n}\n"
	schedules := func(want ...string) func(*world) {
		return func(w *world) {
			w.Helper()
			list, err := record.OpenSchedules(w.nomad, w.name, "default").List(w.Context())
			if err != nil {
				w.Fatal(err)
			}
			var names []string
			for _, s := range list {
				names = append(names, s.Name)
			}
			jobs, _, err := w.nomad.Jobs().List(&api.QueryOptions{Prefix: "drover-" + strings.ReplaceAll(w.name, "-", "--")})
			if err != nil || !slices.Equal(names, want) || len(jobs) != len(want) {
				w.Errorf("schedules %v and %d jobs, want %v, %v", names, len(jobs), want, err)
			}
		}
	}
	return []lostVerb{
		{name: "deploy first", run: func(w *world) []string {
			stack(w, "1", svc{name: "c", value: "1"})
			return []string{"deploy", w.dir, "--prune"}
		}, check: ended(1, record.Done, values(one))},
		{name: "deploy", begin: func(w *world) { first(w); second(w) }, run: func(w *world) []string { return []string{"deploy", w.dir, "--prune"} }, check: ended(2, record.Done, values(two))},
		{
			name: "deploy and revert", code: exitReverted,
			begin: func(w *world) { first(w); stack(w, "2", svc{name: "d", value: "2", deps: []string{"b"}, crash: true}) },
			run:   func(w *world) []string { return []string{"deploy", w.dir, "--prune"} }, check: ended(2, record.Reverted, values(one)),
		},
		{name: "resume", begin: func(w *world) { interrupted(w, 14) }, run: func(w *world) []string { return []string{"resume", w.name} }, check: ended(2, record.Done, values(two))},
		{name: "abort", begin: func(w *world) { interrupted(w, 16) }, run: func(w *world) []string { return []string{"abort", w.name} }, check: ended(2, record.Aborted, values(one))},
		{
			name: "rollback", begin: func(w *world) { first(w); second(w); w.drover(exitOK, "deploy", w.dir, "--prune") },
			run: func(w *world) []string { return []string{"rollback", w.name, "1", "--prune"} }, check: ended(3, record.Done, values(one)),
		},
		{
			name: "destroy", few: true, begin: first, run: func(w *world) []string { return []string{"destroy", w.dir, "-y", "--purge", "secrets,history"} },
			check: func(w *world) {
				values(nil)(w)
				left, _, err := w.nomad.Variables().PrefixList("drover/stacks/"+w.name+"/", nil)
				if err != nil || len(left) > 0 {
					w.Errorf("%d variables are left: %v", len(left), err)
				}
			},
		},
		{
			name: "secrets set", few: true, begin: first, run: func(w *world) []string { return []string{"secrets", "set", w.dir, "pw"} },
			check: func(w *world) { w.secret("from-stdin") },
		},
		{
			name: "secrets rotate", few: true, begin: first, run: func(w *world) []string { return []string{"secrets", "rotate", w.dir, "pw"} },
			check: func(w *world) { w.secret("") },
		},
		{
			name: "schedule apply", few: true, begin: func(w *world) {
				first(w)
				nightly(w, strings.ReplaceAll(block, "NAME", "one")+strings.ReplaceAll(block, "NAME", "two"))
			},
			run: func(w *world) []string { return []string{"schedule", "apply", w.dir} }, check: schedules("one", "two"),
		},
		{
			name: "schedule remove", few: true,
			begin: func(w *world) {
				first(w)
				nightly(w, strings.ReplaceAll(block, "NAME", "one"))
				w.drover(exitOK, "schedule", "apply", w.dir)
				nightly(w, "")
			},
			run: func(w *world) []string { return []string{"schedule", "apply", w.dir} }, check: schedules(),
		},
	}
}

// withSecret gives the stack a secret that a service uses.
func (w *world) withSecret(service string) {
	w.Helper()
	path := w.dir + "/stack.hcl"
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	head := fmt.Sprintf("service %q {\n", service)
	out := strings.Replace(string(text), head, head+"  secrets = [\"pw\"]\n", 1) + "secret \"pw\" {\n  type = \"random\"\n}\n"
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		w.Fatal(err)
	}
}

// secret checks that the stack and the job have the same secret: want, or any if
// want is "".
func (w *world) secret(want string) {
	w.Helper()
	got, err := record.OpenSecrets(w.nomad, w.name, "default", nil).Item(w.Context(), "pw")
	if err != nil {
		w.Fatal(err)
	}
	v, _, err := w.nomad.Variables().Read("nomad/jobs/"+w.job("a"), nil)
	if err != nil || v.Items["pw"] != got.Reveal() || want != "" && got.Reveal() != want {
		w.Errorf("the secret of the job is not that of the stack, or not the one that was set: %v", err)
	}
}

// current is the value of a service that is not stopped, "" for none.
func (w *world) current(service string) string {
	w.Helper()
	job, _, err := w.nomad.Jobs().Info(w.job(service), nil)
	if err != nil || job.Stop != nil && *job.Stop {
		return ""
	}
	return job.TaskGroups[0].Tasks[0].Env["VALUE"]
}

// lostAt reports whether the command ended before its n-th write.
func lostAt(t *testing.T, env []string, verb lostVerb, n int, program string) bool {
	w := newWorld(t, env, fmt.Sprintf("lost-%s%d", strings.ReplaceAll(verb.name, " ", ""), n))
	w.program = program
	if verb.begin != nil {
		verb.begin(w)
	}
	args := verb.run(w)
	proxy := proxyOf(t, env)
	struck := false
	proxy.Answer(func(write int) int {
		if write != n {
			return 0
		}
		struck = true
		if n%2 == 0 {
			return http.StatusInternalServerError
		}
		return devtest.LoseAnswer
	})
	cmd := w.command(through(proxy, env), args...)
	cmd.Stdin = strings.NewReader("from-stdin")
	out, code := run(cmd)
	proxy.Answer(nil)
	if !struck {
		if code != verb.code {
			t.Errorf("drover %s ended with %d, want %d:\n%s", strings.Join(args, " "), code, verb.code, out)
		}
		return true
	}
	t.Logf("the answer to %s was lost", proxy.Writes()[n-1])
	if code != verb.code {
		t.Errorf("drover %s ended with %d, want %d:\n%s", strings.Join(args, " "), code, verb.code, out)
	}
	verb.check(w)
	w.unlocked()
	if t.Failed() {
		t.Logf("it said:\n%s", out)
	}
	return false
}
