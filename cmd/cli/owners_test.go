package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
	"github.com/drover-nomad/drover/record"
)

// TestOwnersOnCluster runs drover for several environments and stacks on one cluster.
func TestOwnersOnCluster(t *testing.T) {
	t.Parallel()
	env := clusterEnv(t)
	together(t, env, map[string]func(*testing.T, []string){
		"a job of another environment is refused":          refusesForeignEnvironment,
		"an identical job of another record is refused":    refusesIdenticalJob,
		"a job that another record owns does not stop":     sparesForeignJob,
		"a record in another namespace owns its jobs":      ownsAcrossNamespaces,
		"two environments run side by side":                runsSideBySide,
		"a move restarts nothing":                          movesWithoutARestart,
		"a move that is killed is finished":                moveKilledAnywhere,
		"a running job stops only if its plan was seen":    prunesWhatWasSeen,
		"a redeploy stops no job":                          redeployPrunesNothing,
		"two environments do not share a service or route": refusesSharedNames,
	})
}

// varValue gives a task the variable "value" of its stack as VALUE.
const varValue = "env {\n  VALUE = var.value\n}"

// customers is a stack whose job IDs depend on a variable.
func customers(t *testing.T, env []string, name string) *world {
	t.Helper()
	w := newWorld(t, env, name)
	if err := os.Mkdir(w.dir+"/environments", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{
		"stack.hcl":             fmt.Sprintf("stack %q {}\n", name),
		"environments/dev.hcl":  "variables {\n  value = \"dev\"\n}\n",
		"environments/prod.hcl": "variables {\n  value = \"prod\"\n}\n",
		"environments/same.hcl": "variables {\n  value = \"dev\"\n}\n",
		"variables.hcl":         "variable \"customer\" {\n  default = \"one\"\n}\nvariable \"value\" {}\n",
		"web.nomad.hcl":         devtest.MockJob{ID: "web", Job: fmt.Sprintf("id = \"%s-${var.customer}\"", name), Task: varValue}.String(),
	})
	return w
}

// running returns the allocations of a job that run, by ID.
func (w *world) running(id string) []string {
	w.Helper()
	list, _, err := w.nomad.Jobs().Allocations(id, false, nil)
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, a := range list {
		if a.ClientStatus == api.AllocClientStatusRunning && a.DesiredStatus == api.AllocDesiredStatusRun {
			out = append(out, a.ID)
		}
	}
	return out
}

func refusesForeignEnvironment(t *testing.T, env []string) {
	w := customers(t, env, "twoenvs")
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	before := w.specs()
	const owner = "belongs to release 1 of stack twoenvs, environment dev"
	w.want(w.drover(exitOK, "plan", w.dir, "-e", "prod"), "Job twoenvs-one "+owner)
	var plan struct {
		Foreign []string   `json:"foreign"`
		Owners  []ownedJob `json:"owners"`
	}
	out, err := w.command(w.env, "plan", w.dir, "-e", "prod", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &plan)
	}
	if want := (ownedJob{JobID: "twoenvs-one", Stack: "twoenvs", Environment: "dev", Release: 1}); err != nil || len(plan.Owners) != 1 || plan.Owners[0] != want || len(plan.Foreign) != 1 {
		t.Errorf("plan -o json: got %+v (%v), want %+v as owner", plan, err, want)
	}
	w.want(w.drover(exitUsage, "deploy", w.dir, "-e", "prod"), owner, "`drover move twoenvs -e dev --to-env prod`", "${drover.environment}")
	w.want(w.drover(exitUsage, "adopt", w.dir, "-e", "prod", "-y"), owner)
	if out := w.drover(exitError, "status", w.dir, "-e", "prod"); strings.Contains(out, "healthy") {
		t.Errorf("the status of an environment that was never deployed shows another one's job:\n%s", out)
	}
	if got := w.specs(); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("the job was changed: got %v, want %v", got, before)
	}
	if last, err := record.OpenReleases(w.nomad, "twoenvs", "prod").Last(t.Context()); err != nil || last != nil {
		t.Errorf("a release was recorded: %v, %v", last, err)
	}
	// The owner goes on without a question, also after a change by hand.
	job, _, err := w.nomad.Jobs().Info("twoenvs-one", nil)
	if err != nil {
		t.Fatal(err)
	}
	job.TaskGroups[0].Tasks[0].Env["VALUE"] = "by hand"
	if _, _, err := w.nomad.Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	w.want(w.drover(exitUsage, "deploy", w.dir, "-e", "prod"), owner)
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
}

func refusesIdenticalJob(t *testing.T, env []string) {
	w := customers(t, env, "identical")
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	w.want(w.drover(exitUsage, "deploy", w.dir, "-e", "same"), "job identical-one belongs to release 1 of stack identical, environment dev")

	// With both deployed, one does not take over the other's job.
	w.drover(exitOK, "deploy", w.dir, "-e", "same", "-var", "customer=two")
	before := w.running("identical-two")
	w.want(w.drover(exitUsage, "deploy", w.dir, "-e", "dev", "-var", "customer=two"),
		"job identical-two belongs to release 1 of stack identical, environment same")
	if got := w.running("identical-one"); len(got) != 1 {
		t.Errorf("identical-one: got allocations %v, want 1", got)
	}
	if got := w.running("identical-two"); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("identical-two: got allocations %v, want %v", got, before)
	}
}

// A job that was purged by hand and is another environment's since is not
// pruned by the record of the one that had it before.
func sparesForeignJob(t *testing.T, env []string) {
	w := customers(t, env, "spared")
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	if _, _, err := w.nomad.Jobs().Deregister("spared-one", true, nil); err != nil {
		t.Fatal(err)
	}
	w.drover(exitOK, "deploy", w.dir, "-e", "prod")
	before := w.running("spared-one")
	out := w.drover(exitOK, "plan", w.dir, "-e", "dev", "-var", "customer=two")
	w.want(out, "spared-one is not in the stack any more and keeps running: it belongs to release 1 of stack spared, environment prod")
	if strings.Contains(out, "web  stop") {
		t.Errorf("the plan stops the job of another environment:\n%s", out)
	}
	w.drover(exitOK, "deploy", w.dir, "-e", "dev", "-var", "customer=two")
	if got := w.running("spared-one"); len(before) != 1 || fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("spared-one: got allocations %v, want %v", got, before)
	}
}

// drover.environment makes the jobs of two environments two.
func runsSideBySide(t *testing.T, env []string) {
	w := customers(t, env, "beside")
	spec, err := os.ReadFile(w.dir + "/web.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"web.nomad.hcl": strings.Replace(string(spec), "${var.customer}", "${drover.environment}", 1)})
	w.drover(exitOK, "deploy", w.dir, "-e", "dev")
	w.drover(exitOK, "deploy", w.dir, "-e", "prod")
	w.want(w.drover(exitOK, "deploy", w.dir, "-e", "dev"), "unchanged")
	for _, id := range []string{"beside-dev", "beside-prod"} {
		if got := w.running(id); len(got) != 1 {
			t.Errorf("%s: got allocations %v, want 1", id, got)
		}
	}
	// A value of the process is said, since the dev environment sets some.
	out, _ := run(w.command(append([]string{"NOMAD_VAR_value=elsewhere"}, env...), "plan", w.dir, "-e", "prod"))
	w.want(out, "Variable value comes from NOMAD_VAR_value, which overrides environment prod.")
	if strings.Contains(out, "Variable customer") {
		t.Errorf("a variable with its default is named:\n%s", out)
	}
	out, _ = run(w.command(append([]string{"NOMAD_VAR_value=elsewhere"}, env...), "plan", w.dir, "-e", "prod", "-o", "json"))
	w.want(out, `"from": "NOMAD_VAR_value"`, `"overrides": "environment prod"`)
}

// Jobs with different IDs still share what is named alike in Consul.
func refusesSharedNames(t *testing.T, env []string) {
	w := customers(t, env, "names")
	spec, err := os.ReadFile(w.dir + "/web.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	with := func(service, host string) {
		text := strings.Replace(string(spec), "${var.customer}", "${drover.environment}", 1)
		text = strings.Replace(text, "    task ", "    service {\n      name = \""+service+"\"\n      tags = [\"drover.route="+host+"/\"]\n    }\n    task ", 1)
		write(t, w.dir, map[string]string{"web.nomad.hcl": text})
	}
	with("names", "names.example.org")
	w.drover(exitOK, "deploy", w.dir, "--no-certificates", "-e", "dev")
	w.want(w.drover(exitOK, "plan", w.dir, "-e", "prod"),
		"Job names-prod registers Consul service names, and so does job names-dev of environment dev (release 1): deploy refuses.")
	out := w.drover(exitUsage, "deploy", w.dir, "--no-certificates", "-e", "prod")
	w.want(out, "job names-prod registers Consul service names, and so does job names-dev of environment dev", "asks for route names.example.org/")
	with("names-${drover.environment}", "names.example.org")
	out = w.drover(exitUsage, "deploy", w.dir, "--no-certificates", "-e", "prod")
	w.want(out, "asks for route names.example.org/")
	if strings.Contains(out, "Consul service") {
		t.Errorf("the services have two names:\n%s", out)
	}
	with("names-${drover.environment}", "${drover.environment}.names.example.org")
	w.drover(exitOK, "deploy", w.dir, "--no-certificates", "-e", "prod")
	// A change that takes a name is refused, one that takes none is not looked at.
	with("names", "${drover.environment}.names.example.org")
	w.drover(exitUsage, "deploy", w.dir, "--no-certificates", "-e", "prod")
	if n := w.releasesIn("prod"); n != 1 {
		t.Errorf("got %d releases of prod, want 1", n)
	}
}

// A record in another namespace is found, and offers no move.
func ownsAcrossNamespaces(t *testing.T, env []string) {
	w := customers(t, env, "across")
	if _, err := w.nomad.Namespaces().Register(&api.Namespace{Name: "team"}, nil); err != nil {
		t.Fatal(err)
	}
	out, code := run(w.command(append([]string{"NOMAD_NAMESPACE=team"}, env...), "deploy", w.dir, "-e", "dev"))
	if code != exitOK {
		t.Fatalf("deploy in namespace team ended with %d:\n%s", code, out)
	}
	spec, err := os.ReadFile(w.dir + "/web.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, map[string]string{"web.nomad.hcl": strings.Replace(string(spec), "  update {", "  namespace = \"team\"\n  update {", 1)})
	out = w.drover(exitUsage, "deploy", w.dir, "-e", "dev")
	w.want(out, "job across-one belongs to release 1 of stack across, environment dev, in namespace team")
	if strings.Contains(out, "drover move") {
		t.Errorf("a move to another namespace is offered:\n%s", out)
	}
	if _, _, err := w.nomad.Jobs().Deregister("across-one", false, &api.WriteOptions{Namespace: "team"}); err != nil {
		t.Fatal(err)
	}
}
