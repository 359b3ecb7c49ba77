package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/schedule"
)

// movable is a stack with a secret, a schedule and records in DNS, deployed
// twice in environment dev.
func movable(t *testing.T, env []string, name string) *world {
	t.Helper()
	w := newWorld(t, env, name)
	if err := os.Mkdir(w.dir+"/environments", 0o700); err != nil {
		t.Fatal(err)
	}
	const schedules = `
drover_driver "raw_exec" {
  path = "/bin/true"
}
schedule "nightly" {
  action = "redeploy"
  crons  = ["0 3 * * *"]
}
`
	write(t, w.dir, map[string]string{
		"stack.hcl":             fmt.Sprintf("stack %q {}\nsecret \"pw\" {}\nservice \"web\" {\n  secrets = [\"pw\"]\n}\n", name),
		"variables.hcl":         "variable \"value\" {\n  default = \"1\"\n}\n",
		"environments/dev.hcl":  schedules,
		"environments/prod.hcl": schedules,
		"web.nomad.hcl": devtest.MockJob{
			ID: "web", Job: fmt.Sprintf("id = \"%s-web\"", name),
			Task: varValue + fmt.Sprintf(`
template {
  destination = "secrets/pw"
  data        = "{{ with nomadVar \"nomad/jobs/%s-web\" }}{{ .pw }}{{ end }}"
}`, name),
		}.String(),
	})
	w.drover(exitOK, "deploy", w.dir, "-e", "dev", "-var", "value=0")
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	w.drover(exitOK, "schedule", "apply", w.dir, "-e", "dev")
	w.drover(exitOK, "schedule", "pause", w.dir, "nightly", "-e", "dev")
	owner := dns.Owner(name, "dev")
	if _, err := (dns.DesiredRecords{Client: w.nomad}).Put(t.Context(), &dns.Wanted{Owner: owner, Zones: []string{"example.org"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := (dns.DesiredRecords{Client: w.nomad}).PutCredential(t.Context(), owner, "a key"); err != nil {
		t.Fatal(err)
	}
	claims := dns.Ownership{Claims: map[dns.Key]dns.Claim{{Name: "www.example.org", Type: "A"}: {Zone: "example.org"}}}
	if _, err := (dns.NomadStore{Client: w.nomad}).Save(t.Context(), owner, claims); err != nil {
		t.Fatal(err)
	}
	return w
}

// variables returns the paths below the folders of the stack in an environment.
func (w *world) variables(env string) []string {
	w.Helper()
	var out []string
	for _, prefix := range []string{record.Folder(w.name, env) + "/", "drover/dns/" + w.name + "/" + env, "drover/dns-wanted/" + w.name + "/" + env, "drover/dns-credentials/" + w.name + "/" + env} {
		list, _, err := w.nomad.Variables().PrefixList(prefix, nil)
		if err != nil {
			w.Fatal(err)
		}
		for _, v := range list {
			out = append(out, strings.Replace(v.Path, "/"+env, "/ENV", 1))
		}
	}
	slices.Sort(out)
	return out
}

// stands is what a move must not change.
func (w *world) stands() string {
	w.Helper()
	job, _, err := w.nomad.Jobs().Info(w.job("web"), nil)
	if err != nil {
		w.Fatal(err)
	}
	allocs, _, err := w.nomad.Jobs().Allocations(w.job("web"), false, nil)
	if err != nil {
		w.Fatal(err)
	}
	out := fmt.Sprintf("job at %d version %d", *job.JobModifyIndex, *job.Version)
	for _, a := range allocs {
		if a.DesiredStatus == api.AllocDesiredStatusRun {
			out += fmt.Sprintf(", allocation %s %s", a.ID, a.ClientStatus)
			for _, st := range a.TaskStates {
				out += fmt.Sprintf(" %d restarts", st.Restarts)
			}
		}
	}
	return out
}

// movedTo checks that the stack is in one environment, and in it whole.
func (w *world) movedTo(env, from string, before []string) {
	w.Helper()
	if got := w.variables(from); len(got) > 0 {
		w.Errorf("%s still has %v", from, got)
	}
	if got := w.variables(env); !slices.Equal(got, before) {
		w.Errorf("%s has\n%v, want\n%v", env, got, before)
	}
	id := schedule.JobID(w.name, env, "nightly")
	job, _, err := w.nomad.Jobs().Info(id, nil)
	if err != nil {
		w.Fatal(err)
	}
	if got := fmt.Sprint(job.TaskGroups[0].Tasks[0].Config["args"]); !strings.HasSuffix(got, "-e "+env+"]") || *job.Stop {
		w.Errorf("the job of the schedule has arguments %s, stopped %v", got, *job.Stop)
	}
	if _, _, err := w.nomad.Jobs().Info(schedule.JobID(w.name, from, "nightly"), nil); err == nil {
		w.Error("the old job of the schedule is still there")
	}
	s, err := record.OpenSchedules(w.nomad, w.name, env).Read(w.Context(), "nightly")
	if err != nil || s.Paused == "" || s.JobID != id {
		w.Errorf("schedule: got %+v, %v, want it paused with job %s", s, err, id)
	}
	wanted, err := dns.DesiredRecords{Client: w.nomad}.Get(w.Context(), dns.Owner(w.name, env))
	if err != nil || wanted == nil || wanted.Owner != dns.Owner(w.name, env) {
		w.Errorf("DNS: got %+v, %v", wanted, err)
	}
	v, _, err := w.nomad.Variables().Peek("nomad/jobs/"+w.job("web"), nil)
	if err != nil || v.Items["_owner"] != w.name+"/"+env {
		w.Errorf("the variable of the job has owner %q, %v", v.Items["_owner"], err)
	}
}

func movesWithoutARestart(t *testing.T, env []string) {
	w := movable(t, env, "moves")
	state, vars := w.stands(), w.variables("dev")
	pw := w.drover(exitOK, "secrets", "show", w.dir, "pw", "-e", "dev")
	w.want(w.drover(exitOK, "move", w.dir, "-e", "dev", "--to-env", "prod"),
		"moves -e prod: moved from moves -e dev: 2 releases, the secrets, 1 schedule, the DNS records; no job was changed")
	w.movedTo("prod", "dev", vars)
	if got := w.stands(); got != state {
		t.Errorf("something restarted: got %s, want %s", got, state)
	}
	// The record is whole under its new name.
	w.want(w.drover(exitOK, "deploy", w.dir, "-e", "prod"), "unchanged")
	if got := w.drover(exitOK, "secrets", "show", w.dir, "pw", "-e", "prod"); got != pw {
		t.Error("the secret has another value")
	}
	w.drover(exitOK, "status", w.name, "-e", "prod")
	w.drover(exitOK, "rollback", w.name, "-e", "prod")
	w.drover(exitError, "history", w.name, "-e", "dev")
	w.want(w.drover(exitUsage, "deploy", w.dir, "-e", "dev"), "moves-web belongs to release 3 of stack moves, environment prod")

	var list []record.ListedStack
	if err := json.Unmarshal([]byte(w.drover(exitOK, "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(l record.ListedStack) bool { return l.Stack == "moves" })
	if i < 0 || list[i].Environment != "prod" || list[i].Release.Number != 3 || list[i].Release.Environment != "prod" {
		t.Errorf("list: got %+v", list)
	}
	w.want(w.drover(exitOK, "list"), "STACK", "moves", "prod", "deployed")

	// A name that is taken is refused before anything is written.
	w.drover(exitOK, "move", w.name, "-e", "prod", "--to-name", "moves2", "--to-env", "dev")
	other := customers(t, env, "moves")
	other.drover(exitOK, "deploy", other.dir, "-e", "prod")
	w.want(w.drover(exitError, "move", "moves2", "-e", "dev", "--to-name", "moves", "--to-env", "prod"), "cannot move to stack moves (environment prod)")
	w.drover(exitOK, "history", "moves2", "-e", "dev")
	w.drover(exitUsage, "move", "moves2", "-e", "dev")
	w.want(w.drover(exitError, "move", "moves2", "-e", "nowhere", "--to-env", "x"), "has no releases in environment nowhere")
}

// A move that is killed after any of its writes is finished by the same command,
// and nothing else changes the stack before that.
func moveKilledAnywhere(t *testing.T, env []string) {
	w := movable(t, env, "killedmove")
	state, vars := w.stands(), w.variables("dev")
	from, to := "dev", "prod"
	const most = 80
	n := 1
	for ; n <= most; n++ {
		k := &killer{n: n}
		out, code := k.run(w.command(k.serve(t, env), "move", w.name, "-e", from, "--to-env", to))
		if code != -1 && code != exitOK {
			t.Fatalf("write %d: the move ended with %d by itself:\n%s", n, code, out)
		}
		if code == -1 {
			writes := k.proxy.Writes()
			last := writes[len(writes)-1]
			for _, e := range []string{from, to} { // a lock would run out by itself
				_, _ = run(w.command(env, "unlock", w.name, "-e", e, "--force"))
			}
			// The new name is not deployed before it is whole, and the old one not
			// after a move has begun.
			if w.moving(from) {
				out, code := run(w.command(env, "redeploy", w.name, "-e", from))
				if code != exitBusy || !strings.Contains(out, "was interrupted; finish it with `drover move killedmove -e "+from+" --to-env "+to+"`") {
					t.Errorf("after %s a redeploy of %s ended with %d:\n%s", last, from, code, out)
				}
			}
			if _, code := run(w.command(env, "move", w.name, "-e", from, "--to-env", to)); code != exitOK && w.releasesIn(from) > 0 {
				t.Fatalf("after %s the move could not be finished", last)
			}
		}
		w.movedTo(to, from, vars)
		if got := w.stands(); got != state {
			t.Fatalf("write %d: something restarted: got %s, want %s", n, got, state)
		}
		if t.Failed() || code == exitOK {
			break
		}
		from, to = to, from
		w.program = plainDrover(t) // the others repeat the first
	}
	if n < 20 || n > most {
		t.Errorf("the move ended after %d writes", n)
	}
}

// moving reports whether the newest release of an environment is on its way.
func (w *world) moving(env string) bool {
	w.Helper()
	last, err := record.OpenReleases(w.nomad, w.name, env).Last(w.Context())
	return err == nil && last != nil && last.MovedTo != ""
}
