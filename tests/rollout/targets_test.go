package rollout_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// Environments that a stack moves through.
const (
	noTargets = ``
	oneTarget = `
target "fra" {
  region      = "eu"
  datacenters = ["dc1"]
}
`
	twoRegions = oneTarget + `
target "nyc" {
  region   = "us"
  services = ["web"]
}
`
	twoDatacenters = oneTarget + `
target "ams" {
  region      = "eu"
  datacenters = ["dc2"]
  services    = ["web"]
}
`
)

// TestTargetsComeAndGo moves one stack from an environment without targets to
// one region, two regions, back, and to two datacenters of one region.
func TestTargetsComeAndGo(t *testing.T) {
	devtest.NeedsFull(t)
	t.Parallel()
	w := newWorld(t)
	environment := func(text string) { w.write("environments/prod.hcl", text) }
	mode := func(mode string) string { return "mode=" + mode }

	environment(noTargets)
	w.expect(0, nil, "deploy")
	one := map[string]string{"eu/shop-db": "", "eu/shop-web": "one"}
	w.runs(one)

	// The same jobs under the name of a target: nothing to adopt, nothing to
	// stop.
	environment(oneTarget)
	out := w.expect(0, []string{"web@fra"}, "plan")
	if strings.Contains(out, "stop") || strings.Contains(out, "adopt") {
		t.Errorf("the plan is not about the same jobs:\n%s", out)
	}
	w.expect(0, []string{"2 deployed"}, "deploy")
	w.runs(one)
	w.expect(0, []string{"unchanged"}, "deploy")

	// A saved plan over two regions names what moved in which, and does
	// nothing; made again, it does all.
	environment(twoRegions)
	file := filepath.Join(t.TempDir(), "shop.plan")
	w.expect(0, []string{"+ web@nyc  create", "drover deploy " + file}, "plan", "-out", file)
	other := nomadJob("shop-web")
	if _, _, err := w.nomad("us").Jobs().Register(other, nil); err != nil {
		t.Fatal(err)
	}
	out, code := w.run("deploy", file)
	if code != 2 || !strings.Contains(out, "job shop-web runs and is not of this stack") {
		t.Fatalf("a saved plan over a job of another client: got exit code %d, want 2:\n%s", code, out)
	}
	if _, _, err := w.nomad("us").Jobs().Deregister("shop-web", true, nil); err != nil {
		t.Fatal(err)
	}
	if out, code := w.run("deploy", file); code != 0 {
		t.Fatalf("the saved plan ended with %d:\n%s", code, out)
	}
	both := map[string]string{"eu/shop-db": "", "eu/shop-web": "one", "us/shop-web": "one"}
	w.runs(both)
	w.expect(0, nil, "plan", "-out", file, "--var", mode("two"))
	job, _, err := w.nomad("us").Jobs().Info("shop-web", nil)
	if err != nil {
		t.Fatal(err)
	}
	job.TaskGroups[0].Tasks[0].Env["MODE"] = "by hand"
	if _, _, err := w.nomad("us").Jobs().Register(job, nil); err != nil {
		t.Fatal(err)
	}
	out, code = w.run("deploy", file)
	if code != 6 || !strings.Contains(out, `job "shop-web" in region us (target nyc) was changed`) || !strings.Contains(out, "nothing was done") {
		t.Fatalf("a saved plan over a changed job ended with %d:\n%s", code, out)
	}
	w.runs(map[string]string{"eu/shop-db": "", "eu/shop-web": "one", "us/shop-web": "by hand"})
	w.expect(0, nil, "plan", "-out", file)
	if out, code := w.run("deploy", file); code != 0 {
		t.Fatalf("the saved plan ended with %d:\n%s", code, out)
	}
	w.runs(both)

	// A target that is dropped: its jobs stop when the rest is healthy, and not
	// when it is not.
	environment(oneTarget)
	w.expect(0, []string{"at the end", "- web@nyc  stop"}, "plan")
	w.expect(4, []string{"web@fra: failed"}, "deploy", "--prune", "--var", mode("two"), "--var", "error=broken") // one that runs for a moment can be healthy first
	w.runs(both)
	w.expect(0, []string{"web: job shop-web of target nyc will be stopped at the end", "1 stopped"}, "deploy", "--prune")
	w.runs(one)
	w.expect(0, []string{"unchanged"}, "deploy")
	w.expect(0, []string{"web@nyc: deployed"}, "rollback")
	w.runs(both)

	// A target that is gone with its region: only a person can know that.
	if err := w.dev.Kill(t.Context(), "us-nomad-server-1"); err != nil {
		t.Fatal(err)
	}
	w.expect(10, []string{"target nyc is not in the environment any more", "shop-web", "--forget nyc"}, "deploy")
	w.expect(0, []string{"web@nyc keeps running and is forgotten"}, "deploy", "--forget", "nyc")
	w.expect(0, []string{"unchanged"}, "deploy")
	if err := w.dev.Restart(t.Context(), "us-nomad-server-1"); err != nil {
		t.Fatal(err)
	}

	// Back to no targets, and on to jobs with other IDs: created first, then
	// the old ones stop.
	environment(noTargets)
	out = w.expect(0, []string{"2 deployed"}, "deploy")
	if strings.Contains(out, "stopped") {
		t.Errorf("a job was stopped:\n%s", out)
	}
	environment(twoDatacenters)
	w.expect(0, []string{"+ web@fra  create (job shop-web-fra)", "- web  stop"}, "plan")
	w.expect(0, []string{"3 deployed", "2 stopped"}, "deploy", "--prune")
	got := w.modes()
	delete(got, "us/shop-web")
	for job := range map[string]bool{"eu/shop-db-fra": true, "eu/shop-web-fra": true, "eu/shop-web-ams": true} {
		if _, ok := got[job]; !ok {
			t.Errorf("%s does not run", job)
		}
		delete(got, job)
	}
	if len(got) > 0 {
		t.Errorf("these run still: %v", got)
	}
	w.expect(0, []string{"2 deployed", "3 stopped"}, "rollback", "--prune")
	w.eachDatacenterHasItsVolume()
}

// eachDatacenterHasItsVolume: a host volume in one datacenter is none for a job
// in another, and the one that is made for it is where the job can use it.
func (w *world) eachDatacenterHasItsVolume() {
	w.t.Helper()
	nomad := w.nomad("eu")
	create := &api.HostVolumeCreateRequest{Volume: &api.HostVolume{
		Name: "shop-data", PluginID: "mkdir", Constraints: []*api.Constraint{api.NewConstraint("${node.datacenter}", "=", "dc1")},
		RequestedCapabilities: []*api.HostVolumeCapability{{AccessMode: api.HostVolumeAccessModeSingleNodeWriter, AttachmentMode: api.HostVolumeAttachmentModeFilesystem}},
	}}
	if _, _, err := nomad.HostVolumes().Create(create, nil); err != nil {
		w.t.Fatal(err)
	}
	w.write("environments/prod.hcl", twoDatacenters)
	w.write("web.nomad.hcl", strings.Replace(shop["web.nomad.hcl"], `group "g" {`, "group \"g\" {\n    volume \"data\" {\n      type   = \"host\"\n      source = \"shop-data\"\n    }", 1))
	w.expect(1, []string{`job "shop-web-ams" needs host volume "shop-data"`, "--create-volumes"}, "deploy", "--prune")

	nodes, _, err := nomad.Nodes().List(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	at := map[string]string{} // datacenter → node
	for _, n := range nodes {
		at[n.Datacenter] = n.ID
	}
	eligible := func(yes bool) {
		if _, err := nomad.Nodes().ToggleEligibility(at["dc2"], yes, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	eligible(false)
	w.expect(1, []string{"no node that it may run on can be given one"}, "deploy", "--prune", "--create-volumes")
	eligible(true)
	w.expect(0, []string{"volume shop-data of target ams: created", "3 deployed"}, "deploy", "--prune", "--create-volumes")

	list, _, err := nomad.HostVolumes().List(nil, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var on []string
	for _, v := range list {
		on = append(on, v.NodeID)
	}
	if len(list) != 2 || !slices.Contains(on, at["dc1"]) || !slices.Contains(on, at["dc2"]) {
		w.t.Errorf("the volumes are on nodes %v, the datacenters have %v", on, at)
	}
}
