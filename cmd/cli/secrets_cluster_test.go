package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/render"
)

// Secrets of stacks on a real Nomad, through the program as it is run. Their
// tasks read them with templates that end the task when an item is missing.
func TestSecretsOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"the version that runs keeps a dropped secret when the release fails": droppedSecretFails,
		"a rollback publishes what the former version reads":                  rollbackPublishes,
		"an abort and a promotion end with the right items":                   abortAndPromote,
		"an abort gives back what an older drover took":                       abortOfOlder,
		"the items of the old version stay until the last wave is deployed":   droppedInWaves,
		"a renamed environment writes nothing":                                renamedEnvironment,
		"a plan names every item, and unchanged writes nothing":               planNamesItems,
		"set and rotate from an edited tree keep the items that run":          rotateFromEditedTree,
		"a renewed certificate waits for the wave of each job":                renewalInWaves,
		"a variable of an older drover is marked without a restart":           markedWithoutRestart,
		"a rotation names the tasks that do not see it, and the redeploy":     rotationNamesTasks,
		"killed and resumed":                            func(t *testing.T, env []string) { killedWithSecrets(t, env, "resume") },
		"killed and aborted":                            func(t *testing.T, env []string) { killedWithSecrets(t, env, "abort") },
		"plan and deploy refuse what no variable takes": refusedSecrets,
		"runs read the variable of their parent":        runsReadTheirParent,
	})
}

// runsReadTheirParent starts a run of a periodic and of a parameterized job.
func runsReadTheirParent(t *testing.T, env []string) {
	w := newWorld(t, env, "runs-secrets")
	read := "template {\n  destination = \"secrets/env\"\n  error_on_missing_key = true\n  data = \"{{ with nomadVar " + strings.ReplaceAll(render.OwnVariable(true), `"`, `\"`) + " }}{{ .a }}{{ end }}\"\n}"
	job := func(name, kind string) string {
		return devtest.MockJob{ID: w.job(name), Type: "batch", Job: kind, Task: read, Config: `run_for = "1ms"`}.String()
	}
	write(t, w.dir, map[string]string{
		"stack.hcl":       "stack \"runs-secrets\" {}\nsecret \"a\" {}\nservice \"night\" {\n  secrets = [\"a\"]\n}\nservice \"call\" {\n  secrets = [\"a\"]\n}\n",
		"night.nomad.hcl": job("night", "periodic {\n  crons = [\"0 0 1 1 *\"]\n}"),
		"call.nomad.hcl":  job("call", "parameterized {}"),
	})
	w.drover(exitOK, "deploy", w.dir, "-y")
	if _, _, err := w.nomad.Jobs().PeriodicForce(w.job("night"), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.nomad.Jobs().Dispatch(w.job("call"), nil, nil, "", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"night", "call"} {
		w.until("a run of "+name+" ends", func() bool {
			jobs, _, err := w.nomad.Jobs().PrefixList(w.job(name) + "/")
			if err != nil {
				t.Fatal(err)
			}
			for _, j := range jobs {
				for _, s := range j.JobSummary.Summary {
					if s.Failed > 0 {
						t.Fatalf("the run %s failed", j.ID)
					}
					if s.Complete > 0 {
						return true
					}
				}
			}
			return false
		})
	}
}

// reader is a stack whose job web reads secrets.
type reader struct{ *world }

func newReader(t *testing.T, env []string, name string) *reader {
	t.Helper()
	r := &reader{newWorld(t, env, name)}
	if err := os.Mkdir(r.dir+"/environments", 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

// secretJob is a job that reads items, with more at the end of its group.
func secretJob(id, value string, items []string, config, update string) string {
	var refs strings.Builder
	for _, item := range items {
		fmt.Fprintf(&refs, "{{ .%s }} ", item)
	}
	return devtest.MockJob{
		ID: id, Value: value, Config: config, Update: update,
		Task: fmt.Sprintf(`template {
  destination          = "secrets/env"
  error_on_missing_key = true
  splay                = "0s"
  data                 = "{{ with nomadVar \"nomad/jobs/%s\" }}%s{{ end }}"
}`, id, refs.String()),
	}.String()
}

const (
	runsOn   = `run_for = "1h"`
	notToRun = devtest.Broken
)

// put writes a version of the stack: declared are the secrets of the stack, and
// items what web reads.
func (r *reader) put(value string, declared, items []string, config, update string) {
	r.Helper()
	var hcl strings.Builder
	fmt.Fprintf(&hcl, "stack %q {}\n", r.name)
	for _, s := range declared {
		fmt.Fprintf(&hcl, "secret %q {}\n", s)
	}
	fmt.Fprintf(&hcl, "service \"web\" {\n  secrets = [%s]\n}\n", quoted(items))
	write(r.T, r.dir, map[string]string{
		"stack.hcl": hcl.String(), "web.nomad.hcl": secretJob(r.job("web"), value, items, config, update),
	})
}

func quoted(items []string) string {
	var out []string
	for _, i := range items {
		out = append(out, fmt.Sprintf("%q", i))
	}
	return strings.Join(out, ", ")
}

// variable returns the items of the variable of a job, and its ModifyIndex.
func (w *world) variable(path string) (map[string]string, uint64) {
	w.Helper()
	v, _, err := w.nomad.Variables().Peek(path, nil)
	if err != nil {
		w.Fatal(err)
	}
	if v == nil {
		return nil, 0
	}
	return v.Items, v.ModifyIndex
}

// holds checks which items the variable of a service has beside drover's own.
func (w *world) holds(service string, want ...string) {
	w.Helper()
	items, _ := w.variable("nomad/jobs/" + w.job(service))
	got := slices.DeleteFunc(slices.Sorted(maps.Keys(items)), func(name string) bool { return strings.HasPrefix(name, "_") })
	if !slices.Equal(got, want) {
		w.Errorf("the variable of %s has %q, want %q", service, got, want)
	}
}

// runs returns the allocation of a service that runs, as soon as there is one:
// a task that restarts is pending for a moment.
func (w *world) runs(service string) *api.AllocationListStub {
	w.Helper()
	var runs *api.AllocationListStub
	w.until("an allocation of "+service+" runs", func() bool {
		allocs, _, err := w.nomad.Jobs().Allocations(w.job(service), false, nil)
		if err != nil {
			w.Fatal(err)
		}
		for _, a := range allocs {
			if a.ClientStatus == "running" && a.DesiredStatus == "run" {
				runs = a
			}
		}
		return runs != nil
	})
	return runs
}

// undisturbed checks that an allocation runs and none of its tasks restarted.
func (w *world) undisturbed(service string, was *api.AllocationListStub) {
	w.Helper()
	a, _, err := w.nomad.Allocations().Info(was.ID, nil)
	if err != nil {
		w.Fatal(err)
	}
	if a.ClientStatus != "running" || a.TaskStates["t"].Restarts != was.TaskStates["t"].Restarts {
		w.Errorf("%s: allocation %s is %s with %d restarts, want running with %d", service, a.ID, a.ClientStatus, a.TaskStates["t"].Restarts, was.TaskStates["t"].Restarts)
	}
}

// restarted waits until the task of a service has restarted since was.
func (w *world) restarted(service string, was *api.AllocationListStub) {
	w.Helper()
	w.until("the task of "+service+" has restarted", func() bool {
		a := w.runs(service)
		return a.ID != was.ID || a.TaskStates["t"].Restarts > was.TaskStates["t"].Restarts
	})
}

func droppedSecretFails(t *testing.T, env []string) {
	r := newReader(t, env, "dropfail")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	r.put("2", []string{"a", "c"}, []string{"a", "c"}, notToRun, "")
	r.drover(exitReverted, "deploy", r.dir)
	if got := r.value("web"); got != "1" {
		t.Errorf("version %s runs", got)
	}
	r.runs("web")
	r.holds("web", "a", "b")
	if items, _ := r.variable("nomad/jobs/" + r.job("web")); items["b"] == "" {
		t.Error("b is empty")
	}
	// While it failed, the old version was not to notice.
	r.put("2", []string{"a"}, []string{"a"}, notToRun, "canary = 1")
	was := r.runs("web")
	r.drover(exitReverted, "deploy", r.dir)
	r.undisturbed("web", was)
	r.holds("web", "a", "b")
}

func rollbackPublishes(t *testing.T, env []string) {
	r := newReader(t, env, "rollpub")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	first, _ := r.variable("nomad/jobs/" + r.job("web"))
	r.put("2", []string{"a"}, []string{"a"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	r.holds("web", "a")
	r.drover(exitOK, "rollback", r.name, "1")
	r.holds("web", "a", "b")
	if now, _ := r.variable("nomad/jobs/" + r.job("web")); !maps.Equal(now, first) {
		t.Error("the values are not those of the first release")
	}
	r.runs("web")

	// A value that is lost is named before anything is written.
	r.drover(exitOK, "deploy", r.dir)
	r.holds("web", "a")
	path := record.Folder(r.name, "default") + "/secrets"
	master, _ := r.variable(path)
	delete(master, "b")
	if _, _, err := r.nomad.Variables().Update(&api.Variable{Path: path, Items: master}, nil); err != nil {
		t.Fatal(err)
	}
	specs := r.specs()
	out := r.drover(exitError, "rollback", r.name, "1")
	r.want(out, "reads b of stack rollpub", "drover secrets set")
	if !maps.Equal(specs, r.specs()) {
		t.Error("a job changed")
	}
	r.unlocked()
}

func abortAndPromote(t *testing.T, env []string) {
	r := newReader(t, env, "secabort")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	was := r.runs("web")
	r.put("2", []string{"a", "c"}, []string{"a", "c"}, runsOn, "canary = 1")
	r.drover(exitPromotion, "deploy", r.dir)
	r.holds("web", "a", "b", "c")
	r.undisturbed("web", was)
	r.drover(exitOK, "promote", r.name)
	r.holds("web", "a", "c")

	// Back, also when the variable has lost an item meanwhile: older drovers took
	// what the new version does not read before they submitted it.
	was = r.runs("web")
	r.put("3", []string{"a"}, []string{"a"}, runsOn, "canary = 1")
	r.drover(exitPromotion, "deploy", r.dir)
	r.holds("web", "a", "c")
	r.drover(exitOK, "abort", r.name)
	r.holds("web", "a", "c")
	r.undisturbed("web", was)
	r.put("4", []string{"a"}, []string{"a"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	r.holds("web", "a")

	// A failed service that is not reverted keeps the items of both versions.
	r.put("5", []string{"a", "d"}, []string{"d"}, notToRun, "")
	r.drover(exitFailed, "deploy", r.dir, "--on-failure", "stop")
	r.holds("web", "a", "d")
	r.drover(exitOK, "rollback", r.name, "4")
	r.holds("web", "a")
}

// The items of the old version stay until the release is deployed in all waves.
func droppedInWaves(t *testing.T, env []string) {
	r := newReader(t, env, "dropwave")
	write(t, r.dir, map[string]string{"environments/prod.hcl": "wave \"first\" {\n  services = [\"one\"]\n}\nwave \"second\" {\n  approve = true\n}\n"})
	version := func(value string, items []string, config string) {
		write(t, r.dir, map[string]string{
			"stack.hcl":     fmt.Sprintf("stack \"dropwave\" {}\nsecret \"a\" {}\nsecret \"b\" {}\nservice \"one\" {\n  secrets = [%[1]s]\n}\nservice \"two\" {\n  secrets = [%[1]s]\n}\n", quoted(items)),
			"one.nomad.hcl": secretJob(r.job("one"), value, items, runsOn, ""),
			"two.nomad.hcl": secretJob(r.job("two"), value, items, config, ""),
		})
	}
	version("1", []string{"a", "b"}, runsOn)
	r.drover(exitPromotion, "deploy", r.dir, "-e", "prod")
	r.drover(exitOK, "approve", r.name, "-e", "prod")
	two := r.runs("two")
	for _, end := range []string{"abort", "approve"} {
		version("2", []string{"a"}, runsOn)
		r.drover(exitPromotion, "deploy", r.dir, "-e", "prod")
		r.holds("one", "a", "b")
		r.holds("two", "a", "b")
		r.undisturbed("two", two)
		r.drover(exitOK, end, r.name, "-e", "prod")
		if end == "abort" {
			r.holds("one", "a", "b")
			r.holds("two", "a", "b")
			r.undisturbed("two", two)
		}
	}
	r.holds("one", "a")
	r.holds("two", "a")
	r.drover(exitOK, "rollback", r.name, "1", "-e", "prod")
	r.holds("one", "a", "b")
	r.holds("two", "a", "b")
}

func renamedEnvironment(t *testing.T, env []string) {
	r := newReader(t, env, "rename")
	r.put("1", []string{"a"}, []string{"a"}, runsOn, "")
	write(t, r.dir, map[string]string{"environments/prod.hcl": ""})
	r.drover(exitOK, "deploy", r.dir, "-e", "prod")
	was := r.runs("web")
	before, index := r.variable("nomad/jobs/" + r.job("web"))
	if before["_owner"] != "rename/prod" {
		t.Errorf("the owner is %q", before["_owner"])
	}
	write(t, r.dir, map[string]string{"environments/production.hcl": ""})
	r.want(r.drover(exitOK, "plan", r.dir, "-e", "production"), "environment prod: deploy refuses")
	for _, args := range [][]string{
		{"deploy", r.dir, "-e", "production"}, {"deploy", r.dir},
		{"secrets", "rotate", r.dir, "a"}, // without -e
	} {
		r.want(r.drover(exitUsage, args...), "drover move rename -e prod --to-env", "environment prod")
	}
	if _, now := r.variable("nomad/jobs/" + r.job("web")); now != index {
		t.Error("the variable was written")
	}
	if master, _ := r.variable(record.Folder(r.name, "production") + "/secrets"); master != nil {
		t.Error("new secrets were made")
	}
	r.undisturbed("web", was)
}

func planNamesItems(t *testing.T, env []string) {
	r := newReader(t, env, "secplan")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.want(r.drover(exitOK, "plan", r.dir), "make a, b", "job secplan-web gets a, b")
	r.drover(exitOK, "deploy", r.dir)
	was := r.runs("web")
	items, index := r.variable("nomad/jobs/" + r.job("web"))
	out := r.drover(exitOK, "plan", r.dir)
	for _, v := range items {
		if len(v) > 8 && strings.Contains(out, v) && !strings.Contains(v, "/") {
			t.Errorf("the plan shows a value: %s", out)
		}
	}
	r.want(r.drover(exitOK, "deploy", r.dir), "unchanged")
	if _, now := r.variable("nomad/jobs/" + r.job("web")); now != index {
		t.Error("an unchanged deploy wrote the variable")
	}
	// A declaration that is dropped changes no job, and is a release.
	write(t, r.dir, map[string]string{"stack.hcl": "stack \"secplan\" {}\nsecret \"a\" {}\nsecret \"b\" {}\nsecret \"c\" {}\nservice \"web\" {\n  secrets = [\"a\", \"b\", \"c\"]\n}\n"})
	r.want(r.drover(codeChanges, "plan", r.dir, "--detailed-exitcode"), "make c", "job secplan-web gets c")
	r.want(r.drover(exitOK, "plan", r.dir, "-o", "json"), `"added": [`, `"generated": [`)
	r.drover(exitOK, "deploy", r.dir)
	r.holds("web", "a", "b", "c")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.want(r.drover(exitOK, "plan", r.dir), "loses, when the release is deployed, c")
	r.drover(exitOK, "deploy", r.dir)
	r.holds("web", "a", "b")
	r.undisturbed("web", was)
	r.want(r.drover(exitOK, "deploy", r.dir), "unchanged")
}

func rotateFromEditedTree(t *testing.T, env []string) {
	r := newReader(t, env, "edited")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	was := r.runs("web")
	before, _ := r.variable("nomad/jobs/" + r.job("web"))
	r.put("2", []string{"a", "c"}, []string{"a", "c"}, runsOn, "") // not deployed
	r.want(r.drover(exitOK, "secrets", "rotate", r.dir, "a"), "secret a rotated", "web: task t restarts")
	r.holds("web", "a", "b")
	after, _ := r.variable("nomad/jobs/" + r.job("web"))
	if after["a"] == before["a"] || after["b"] != before["b"] {
		t.Error("a has its old value, or b another one")
	}
	r.restarted("web", was)
}

func renewalInWaves(t *testing.T, env []string) {
	r := newReader(t, env, "renewal")
	stack := func(names string) {
		write(t, r.dir, map[string]string{
			"stack.hcl": fmt.Sprintf(`stack "renewal" {}
secret "tls" {
  type      = "certificate"
  dns_names = [%s]
}
service "one" {
  secrets = ["tls_cert"]
}
service "two" {
  secrets = ["tls_cert"]
}
`, names),
			"one.nomad.hcl": secretJob(r.job("one"), "1", []string{"tls_cert"}, runsOn, ""),
			"two.nomad.hcl": secretJob(r.job("two"), "1", []string{"tls_cert"}, runsOn, ""),
			"environments/prod.hcl": `wave "first" {
  services = ["one"]
}
wave "second" {
  approve = true
}
`,
		})
	}
	stack(`"a.internal"`)
	r.drover(exitPromotion, "deploy", r.dir, "-e", "prod")
	r.drover(exitOK, "approve", r.name, "-e", "prod")
	one, two := r.runs("one"), r.runs("two")
	cert, _ := r.variable("nomad/jobs/" + r.job("one"))

	stack(`"a.internal", "b.internal"`)
	r.want(r.drover(exitOK, "plan", r.dir, "-e", "prod"), "renew certificate tls", "job renewal-one gets a new value of tls_cert")
	r.drover(exitPromotion, "deploy", r.dir, "-e", "prod")
	if now, _ := r.variable("nomad/jobs/" + r.job("one")); now["tls_cert"] == cert["tls_cert"] {
		t.Error("the first wave has the old certificate")
	}
	if now, _ := r.variable("nomad/jobs/" + r.job("two")); now["tls_cert"] != cert["tls_cert"] {
		t.Error("the second wave has the new certificate before it was approved")
	}
	if n := r.runs("one").TaskStates["t"].Restarts - one.TaskStates["t"].Restarts; n != 1 {
		t.Errorf("one has restarted %d times when its wave is done, want 1", n)
	}
	r.undisturbed("two", two)
	r.drover(exitOK, "approve", r.name, "-e", "prod")
	if now, _ := r.variable("nomad/jobs/" + r.job("two")); now["tls_cert"] == cert["tls_cert"] {
		t.Error("the second wave has the old certificate")
	}
	if n := r.runs("two").TaskStates["t"].Restarts - two.TaskStates["t"].Restarts; n != 1 {
		t.Errorf("two has restarted %d times when its wave is done, want 1", n)
	}
	r.want(r.drover(exitOK, "deploy", r.dir, "-e", "prod"), "unchanged")
}

func markedWithoutRestart(t *testing.T, env []string) {
	r := newReader(t, env, "marked")
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	r.drover(exitOK, "deploy", r.dir)
	path := "nomad/jobs/" + r.job("web")
	items, _ := r.variable(path)
	delete(items, "_owner")
	if _, _, err := r.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
		t.Fatal(err)
	}
	_, index := r.variable(path)
	was := r.runs("web")
	r.want(r.drover(exitOK, "deploy", r.dir), "unchanged")
	if _, now := r.variable(path); now != index {
		t.Error("an unchanged deploy wrote the variable")
	}
	items["_owner"] = "marked/default"
	if _, _, err := r.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
		t.Fatal(err)
	}
	// A new value restarts the task once: the mark before it did not.
	r.drover(exitOK, "secrets", "rotate", r.dir, "a")
	r.restarted("web", was)
	if n := r.runs("web").TaskStates["t"].Restarts - was.TaskStates["t"].Restarts; n != 1 {
		t.Errorf("%d restarts, want 1", n)
	}
}

func refusedSecrets(t *testing.T, env []string) {
	r := newReader(t, env, "refused")
	r.put("1", []string{"a"}, []string{"a"}, runsOn, "")
	dotted := func(id string) {
		write(t, r.dir, map[string]string{"web.nomad.hcl": strings.Replace(secretJob(r.job("web"), "1", []string{"a"}, runsOn, ""), `job "`+r.job("web")+`"`, `job "`+id+`"`, 1)})
	}
	for _, id := range []string{r.job("web.example"), r.job(strings.Repeat("w", 128))} {
		dotted(id)
		for _, verb := range []string{"lint", "plan", "deploy"} {
			r.want(r.drover(exitUsage, verb, r.dir), id, "takes no variable")
		}
	}
	// More than a variable takes: 17 values of 4 KiB.
	var names []string
	var stack strings.Builder
	stack.WriteString("stack \"refused\" {}\n")
	for i := range 17 {
		names = append(names, fmt.Sprintf("s%d", i))
		fmt.Fprintf(&stack, "secret \"s%d\" {\n  length = 4096\n}\n", i)
	}
	fmt.Fprintf(&stack, "service \"web\" {\n  secrets = [%s]\n}\n", quoted(names))
	dotted(r.job("web"))
	write(t, r.dir, map[string]string{"stack.hcl": stack.String()})
	for _, verb := range []string{"plan", "deploy"} {
		r.want(r.drover(exitUsage, verb, r.dir), "a Nomad Variable takes 64")
	}
	if master, _ := r.variable(record.Folder(r.name, "default") + "/secrets"); master != nil {
		t.Error("secrets were made")
	}
}

func rotationNamesTasks(t *testing.T, env []string) {
	r := newReader(t, env, "told")
	r.put("1", []string{"a"}, []string{"a"}, runsOn, "")
	web := secretJob(r.job("web"), "1", []string{"a"}, runsOn, "")
	template := web[strings.Index(web, "      template {"):strings.Index(web, "      resources {")]
	web = strings.Replace(web, `    task "t" {`, `    task "migrate" {
      driver = "mock_driver"
      logs {
        disabled = true
      }
      lifecycle {
        hook = "prestart"
      }
      config {
        run_for = "10ms"
      }
`+template+`
      resources {
        cpu    = 1
        memory = 10
      }
    }
    task "t" {`, 1)
	write(t, r.dir, map[string]string{"web.nomad.hcl": web})
	r.drover(exitOK, "deploy", r.dir)
	was := r.runs("web")
	out := r.drover(exitOK, "secrets", "rotate", r.dir, "a")
	r.want(out, "web: task t restarts", "web: task migrate has ended and does not see the new value", "Next: drover redeploy told web")
	r.restarted("web", was)
	r.drover(exitOK, "redeploy", "told", "web")
	if now := r.runs("web"); now.ID == was.ID {
		t.Error("the redeploy replaced nothing")
	}
}

// killedWithSecrets kills a deploy after its writes in turn. The variables always
// have what the version reads that runs, and in the end just what is read.
func killedWithSecrets(t *testing.T, env []string, verb string) {
	first := map[string]int{"resume": 1, "abort": 3}[verb]
	atWrites(t, first, 8, make(chan struct{}, 3), func(t *testing.T, n int, program string) bool {
		r := newReader(t, env, fmt.Sprintf("sec%s%d", verb, n))
		r.program = program
		stack := func(value string, declared, items []string, old string) {
			r.put(value, declared, items, runsOn, "")
			text, err := os.ReadFile(r.dir + "/stack.hcl")
			if err != nil {
				t.Fatal(err)
			}
			write(t, r.dir, map[string]string{"stack.hcl": string(text) + old})
		}
		write(t, r.dir, map[string]string{"old.nomad.hcl": secretJob(r.job("old"), "1", []string{"b"}, runsOn, "")})
		stack("1", []string{"a", "b"}, []string{"a", "b"}, "service \"old\" {\n  secrets = [\"b\"]\n}\n")
		r.drover(exitOK, "deploy", r.dir)
		stack("2", []string{"a", "c"}, []string{"a", "c"}, "")
		if err := os.Remove(r.dir + "/old.nomad.hcl"); err != nil {
			t.Fatal(err)
		}
		k := &killer{n: n}
		out, code := k.run(r.command(k.serve(t, env), "deploy", r.dir, "--prune"))
		if code != exitOK && code != -1 {
			t.Fatalf("the deploy ended with %d by itself: %s", code, out)
		}
		r.drover(exitOK, "unlock", r.name, "--force")
		last, err := r.releases().Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		items, _ := r.variable("nomad/jobs/" + r.job("web"))
		for _, item := range map[string][]string{"1": {"a", "b"}, "2": {"a", "c"}}[r.value("web")] {
			if items[item] == "" {
				t.Errorf("version %s runs without %s", r.value("web"), item)
			}
		}
		if last.Number == 2 && last.State.Open() {
			r.drover(exitOK, verb, r.name)
			if verb == "abort" {
				r.holds("web", "a", "b")
				r.holds("old", "b")
				r.runs("old")
			}
		}
		r.runs("web")
		r.drover(exitOK, "deploy", r.dir, "--prune")
		r.holds("web", "a", "c")
		r.holds("old")
		r.want(r.drover(exitOK, "deploy", r.dir), "unchanged")
		return code == exitOK
	})
}

// An older drover took the items that the new version does not read before it
// submitted it, and its journal does not say what the former version reads.
func abortOfOlder(t *testing.T, env []string) {
	r := newReader(t, env, "older")
	tolerant := func() { // or the old allocation is dead, and Nomad starts no other
		text, err := os.ReadFile(r.dir + "/web.nomad.hcl")
		if err != nil {
			t.Fatal(err)
		}
		write(t, r.dir, map[string]string{"web.nomad.hcl": strings.Replace(string(text), "error_on_missing_key = true", "error_on_missing_key = false", 1)})
	}
	r.put("1", []string{"a", "b"}, []string{"a", "b"}, runsOn, "")
	tolerant()
	r.drover(exitOK, "deploy", r.dir)
	r.put("2", []string{"a"}, []string{"a"}, runsOn, "canary = 1")
	tolerant()
	r.drover(exitPromotion, "deploy", r.dir)
	last, err := r.releases().Last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.releases().TakeOver(t.Context(), last, "older")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Update(t.Context(), 0, func(l *record.Service) { l.BeforeSecrets = nil }); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := "nomad/jobs/" + r.job("web")
	items, _ := r.variable(path)
	delete(items, "b")
	delete(items, "_owner")
	if _, _, err := r.nomad.Variables().Update(&api.Variable{Path: path, Items: items}, nil); err != nil {
		t.Fatal(err)
	}
	r.drover(exitOK, "abort", r.name)
	r.holds("web", "a", "b")
	if got := r.value("web"); got != "1" {
		t.Errorf("version %s runs", got)
	}
	r.runs("web")
}
