package imported

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testInspectImages: --inspect-images finds the port of a service in the image that the
// engine has, and in one that it saved.
func testInspectImages(t *testing.T, w *world, n *node) {
	const name = "example.org/inspected:1"
	p, err := image{Files: []file{{Path: "server", Source: filepath.Join(w.Dir, "server")}}, Entrypoint: []string{"/server"}, Ports: []string{"7443/tcp", "53/udp"}}.pack()
	must(t, err)
	n.load(t, name, p)
	dir := t.TempDir()
	compose := filepath.Join(dir, "compose.yaml")
	must(t, os.WriteFile(compose, []byte("services:\n  web: {image: 'a:1', expose: [80], environment: {API_HOST: api}}\n  api: {image: '"+name+"'}\n"), 0o600))
	saved := filepath.Join(dir, "saved.tar")
	n.Must(t, "docker", "save", "--output", saved, name)
	for flag, out := range map[string]string{"--inspect-images": "asked", "--inspect-images=" + saved: "read"} {
		out = filepath.Join(dir, out)
		n.Must(t, w.Drover.Path, "import", compose, flag, "--out", out)
		job, err := os.ReadFile(filepath.Join(out, "api.nomad.hcl"))
		must(t, err)
		if !strings.Contains(string(job), `port "p7443"`) {
			t.Errorf("%s: got\n%s\nwant port 7443 of the image", flag, job)
		}
	}
}
