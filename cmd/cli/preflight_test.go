package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/api"
)

// preflight: a namespace that does not exist is found before a certificate or
// anything else is written.
func preflight(t *testing.T, env []string) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "environments"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{
		"stack.hcl":            "stack \"early\" {}\ncertificate \"early\" {\n  names = [\"early.example.org\"]\n}\n",
		"web.nomad.hcl":        mockJob("early-web", "100ms"),
		"environments/dev.hcl": "",
	})
	deploy := func(more ...string) (string, int) {
		cmd := exec.CommandContext(t.Context(), "drover", "deploy", dir, "-e", "dev")
		cmd.Env = append(append(os.Environ(), env...), more...)
		out, err := cmd.CombinedOutput()
		code := 0
		if err != nil {
			code = cmd.ProcessState.ExitCode()
		}
		return string(out), code
	}
	nothing := func(namespace string) {
		t.Helper()
		vars, _, err := nomadOf(t, env).Variables().List(&api.QueryOptions{Namespace: namespace, Prefix: "drover/certs"})
		if err != nil || len(vars) > 0 {
			t.Errorf("in namespace %s there are %v, %v, want nothing", namespace, vars, err)
		}
	}
	out, code := deploy("NOMAD_NAMESPACE=nosuch")
	if want := `NOMAD_NAMESPACE names namespace "nosuch", which does not exist; create it with` + " `nomad namespace apply nosuch`"; code != exitUsage || !strings.Contains(out, want) {
		t.Errorf("got %d: %s\nwant %d: %s", code, out, exitUsage, want)
	}
	nothing("nosuch")

	write(t, dir, map[string]string{"web.nomad.hcl": strings.Replace(mockJob("early-web", "100ms"), "  group", "  namespace = \"nosuch\"\n  group", 1)})
	out, code = deploy()
	if want := `job "early-web" names namespace "nosuch", which does not exist`; code != exitUsage || !strings.Contains(out, want) {
		t.Errorf("got %d: %s\nwant %d: %s", code, out, exitUsage, want)
	}
	nothing("default")

	// The plan also fails before a certificate is issued.
	write(t, dir, map[string]string{"web.nomad.hcl": strings.Replace(mockJob("early-web", "100ms"), "  group", "  constraint {\n    attribute = \"${attr.kernel.name}\"\n    value = \"plan9\"\n  }\n  group", 1)})
	out, code = deploy()
	if want := "web: no node can take it"; code != exitPlacement || !strings.Contains(out, want) {
		t.Errorf("got %d: %s\nwant %d: %s", code, out, exitPlacement, want)
	}
	nothing("default")

	write(t, dir, map[string]string{"web.nomad.hcl": strings.Replace(mockJob("early-web", "100ms"), "    task", "    volume \"v\" {\n      type = \"csi\"\n      source = \"early-data\"\n      access_mode = \"single-node-writer\"\n      attachment_mode = \"file-system\"\n    }\n    task", 1)})
	out, code = deploy()
	if want := `job "early-web" needs CSI volume "early-data", which is not in namespace default`; code != exitError || !strings.Contains(out, want) {
		t.Errorf("got %d: %s\nwant %d: %s", code, out, exitError, want)
	}
	nothing("default")
}
