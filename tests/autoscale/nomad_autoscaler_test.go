package autoscale

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// envAutoscaler runs the test that needs nomad-autoscaler, which takes minutes to build.
const envAutoscaler = "DROVER_TEST_AUTOSCALER"

// HashiCorp's nomad-autoscaler, deployed as a stack, scales by VictoriaMetrics and by what
// Nomad measures, and the controller does not. As a scaler of nodes only, it leaves jobs
// to the controller.
func TestNomadAutoscaler(t *testing.T) {
	t.Parallel()
	if os.Getenv(envAutoscaler) == "" {
		t.Skipf("%s is not set (make autoscaler)", envAutoscaler)
	}
	w := start(t, devcluster.NomadAutoscaler)
	dir := t.TempDir()
	write := func(files map[string]string) {
		text := "stack \"shop\" {}\n"
		for name, content := range files {
			text += "service \"" + name + "\" {}\n"
			if err := os.WriteFile(filepath.Join(dir, name+".nomad.hcl"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "stack.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.drover.Want(t, 0, "deploy", dir)
	}
	check := func(source, query, strategy string) string {
		return "check \"load\" {\n source = \"" + source + "\"\n query = \"" + query + "\"\n query_window = \"4s\"\n strategy " + strategy + "\n}"
	}
	files := map[string]string{
		"queue": mock("queue", check("prometheus", "vector(3)", `"pass-through" {}`)),
		"usage": strings.NewReplacer(`"mock_driver"`, `"raw_exec"`, `run_for = "1h"`, "command = \"/bin/sleep\"\nargs = [\"3600\"]").Replace(mock("usage", check("nomad-apm", "avg_cpu", "\"threshold\" {\n lower_bound = 0\n within_bounds_trigger = 1\n value = 2\n}"))),
	}
	metrics, _ := devtest.MetricsServer(t, devtest.VictoriaMetrics)
	w.drover.Want(t, 0, "deploy", "autoscaler", "-e", "dev", "-var", "prometheus="+metrics)
	t.Cleanup(func() {
		if t.Failed() {
			for _, service := range []string{"autoscaler", "node-autoscaler"} {
				out, _ := w.drover.Run(t, "logs", "autoscaler", service, "-e", "dev", "--tail", "60")
				t.Logf("%s:\n%s", service, out)
			}
		}
	})
	w.controller(t, metrics)
	write(files)
	w.reaches(t, "queue", 3)
	w.reaches(t, "usage", 2)
	w.states(t, map[string]string{"queue": "conflict", "usage": "conflict"})
	devtest.Contains(t, w.drover.Want(t, 0, "status", dir), "scaling of queue, group g: count 3; 1 to 3", "by nomad-autoscaler")

	w.drover.Want(t, 0, "deploy", "autoscaler", "-e", "dev", "-var", "prometheus="+metrics, "-var", "scale_jobs=false", "--prune")
	files["late"] = mock("late", check("prometheus", "vector(2)", `"pass-through" {}`))
	write(files)
	w.reaches(t, "late", 2)
	devtest.Contains(t, w.drover.Want(t, 0, "status", dir), "scaling of late, group g: count 2; 1 to 2", "by drover")
	if got := w.count(t, "queue"); got != 3 {
		t.Errorf("queue has count %d, want 3, as nomad-autoscaler left it", got)
	}
}
