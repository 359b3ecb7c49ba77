package imported

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestOnCluster(t *testing.T) {
	w := newWorld(t, 5)
	t.Run("doctor", func(t *testing.T) { testDoctor(t, w) })
	// Side by side, whatever -parallel says: they wait more than they work.
	var all sync.WaitGroup
	all.Go(func() { t.Run("guestbook", func(t *testing.T) { testGuestbook(t, w, w.Nodes[4]) }) })
	all.Go(func() { t.Run("conformance", func(t *testing.T) { testConformance(t, w, w.Nodes[2:4]) }) })
	all.Go(func() { t.Run("networks", func(t *testing.T) { testNetworks(t, w) }) })
	all.Go(func() {
		w.run(t, "two nodes", func(t *testing.T) {
			devtest.NeedsFull(t)
			testTwoNodes(t, w)
		})
	})
	all.Go(func() { w.run(t, "features", func(t *testing.T) { testFeatures(t, w) }) })
	all.Go(func() { w.run(t, "kubernetes", func(t *testing.T) { testKubernetes(t, w) }) })
	all.Go(func() { w.run(t, "images", func(t *testing.T) { testInspectImages(t, w, w.Nodes[4]) }) })
	all.Wait()
}

// entry is where the conformance cases publish their server.
const entry = "http://127.0.0.1:8080"

// conformance is a case of the conformance tests of the Compose specification.
type conformance struct {
	name string // of its folder
	args []string
	full bool // see [devtest.NeedsFull]
	run  func(t *testing.T, n *node)
}

// testConformance runs the conformance cases of the Compose specification. Each has a
// node for itself, for all of them publish one port.
func testConformance(t *testing.T, w *world, nodes []*node) {
	dir := conformanceFiles(t)
	cases := []conformance{
		{"simple_network", nil, false, func(t *testing.T, n *node) {
			n.answers(t, entry+"/ping?address=target:8080/ping", "PONG FROM TARGET")
			n.answers(t, entry+"/ping?address=notatarget:8080/ping", "Could not reach address: notatarget:8080/ping")
		}},
		{"scaling", []string{"--kind", "client=batch"}, true, func(t *testing.T, n *node) {
			n.answers(t, entry+"/scalechecker", "3")
		}},
		{"different_networks", nil, true, func(t *testing.T, n *node) {
			n.answers(t, entry+"/ping?address=target:8080/ping", "Could not reach address: target:8080/ping")
		}},
		{"simple_volume", nil, true, func(t *testing.T, n *node) { n.answers(t, entry+"/volumefile?filename=test_volume.txt", "MYVOLUME") }},
		{"simple_secretfile", nil, false, func(t *testing.T, n *node) { n.answers(t, entry+"/volumefile?filename=test_secret.txt", "MYSECRET") }},
		{"simple_configfile", nil, true, func(t *testing.T, n *node) { n.answers(t, entry+"/volumefile?filename=test_config.txt", "MYCONFIG") }},
		{"udp_port", nil, false, testUDP},
		{"simple_lifecycle", nil, true, func(*testing.T, *node) {}},
	}
	// The last node is not prepared: the mesh makes the addresses local itself.
	last := nodes[len(nodes)-1]
	last.Must(t, "ip", "route", "del", "local", meshNetwork, "dev", "lo")
	var lanes sync.WaitGroup
	for lane, n := range nodes {
		lanes.Go(func() {
			for i := lane; i < len(cases); i += len(nodes) {
				w.run(t, cases[i].name, func(t *testing.T) {
					if cases[i].full {
						devtest.NeedsFull(t)
					}
					w.runCase(t, filepath.Join(dir, cases[i].name), cases[i], n, n == last)
				})
			}
		})
	}
	lanes.Wait()
}

// conformanceFiles returns the folder of the cases: the files of compose-spec's
// conformance tests, which lie beside the checkout, or else files that say the same.
func conformanceFiles(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "data", "import", "compose", "conformance-tests"))
	must(t, err)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	t.Logf("%s is absent: the cases run with files of this test", dir)
	const (
		server = "services:\n  server:\n    image: composespec/conformance-tests-server\n    ports:\n      - '8080:8080'\n"
		target = "  target:\n    image: composespec/conformance-tests-server\n"
	)
	dir = t.TempDir()
	for name, text := range map[string]string{
		"simple_lifecycle/compose.yaml":   "services:\n  server:\n    image: composespec/conformance-tests-server\n",
		"simple_network/compose.yaml":     server + "    networks: [one]\n" + target + "    networks: [one]\nnetworks:\n  one: {}\n",
		"different_networks/compose.yaml": server + "    networks: [one]\n" + target + "    networks: [two]\nnetworks:\n  one: {}\n  two: {}\n",
		"simple_volume/compose.yaml":      server + "    volumes: ['./test_volume.txt:/volumes/test_volume.txt']\n",
		"simple_volume/test_volume.txt":   "MYVOLUME",
		"simple_secretfile/compose.yaml": server + "    secrets:\n      - source: text\n        target: /volumes/test_secret.txt\n" +
			"secrets:\n  text:\n    file: ./test_secret.txt\n",
		"simple_secretfile/test_secret.txt": "MYSECRET",
		"simple_configfile/compose.yaml": server + "    configs:\n      - source: text\n        target: /volumes/test_config.txt\n" +
			"configs:\n  text:\n    file: ./test_config.txt\n",
		"simple_configfile/test_config.txt": "MYCONFIG",
		"udp_port/compose.yaml":             server + "      - {target: 10001, published: '10001', protocol: udp, mode: host}\n",
		"scaling/compose.yaml":              server + "  client:\n    image: composespec/conformance-tests-client\n    deploy: {replicas: 3}\n",
	} {
		file := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return dir
}

// runCase imports, deploys and destroys the application of a case. With prepare, its mesh
// makes the addresses local.
func (w *world) runCase(t *testing.T, folder string, c conformance, n *node, prepare bool) {
	t.Helper()
	began := time.Now()
	stack := strings.ReplaceAll(c.name, "_", "-")
	dir := w.Import(t, stack, append(c.args, filepath.Join(folder, "compose.yaml"))...)
	flags := on(n)
	if _, err := os.Stat(filepath.Join(dir, "mesh.nomad.hcl")); err == nil && prepare {
		flags = append(flags, "--var", "mesh_prepare=true")
	}
	w.Deploy(t, dir, flags...)
	t.Logf("deployed on %s after %s", n.Name, time.Since(began).Round(100*time.Millisecond))
	if c.name != "simple_lifecycle" {
		devtest.Until(t, 5*time.Second, "the server answers", func() bool {
			resp, err := n.Client().Get(entry + "/ping")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
	c.run(t, n)
	w.Destroy(t, dir)
	devtest.Until(t, 30*time.Second, "no container is left", func() bool {
		return !strings.Contains(n.Must(t, "docker", "-H", "unix:///run/docker.sock", "ps", "--all", "--format", "{{.Names}}"), "-")
	})
	t.Logf("destroyed after %s", time.Since(began).Round(100*time.Millisecond))
}

// answers asks a server from the node and compares the body.
func (n *node) answers(t *testing.T, ask, want string) {
	t.Helper()
	n.answersWithin(t, ask, want, 10*time.Second)
}

func (n *node) answersWithin(t *testing.T, ask, want string, limit time.Duration) {
	t.Helper()
	began := time.Now()
	resp, err := n.Client().Get(ask)
	if err != nil {
		t.Errorf("%s: %v", ask, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	text, err := json.Marshal(map[string]string{"response": want})
	must(t, err)
	if string(body) != string(text)+"\n" {
		t.Errorf("%s: got %q, want %q", ask, body, string(text)+"\n")
	}
	if d := time.Since(began); d > limit {
		t.Errorf("%s: got the answer after %s, want less than %s", ask, d, limit)
	}
}

func testUDP(t *testing.T, n *node) {
	conn, err := n.Dial(t.Context(), "udp", "127.0.0.1:10001")
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(`{"request":"myUdpvalue"}`))
	must(t, err)
	devtest.Until(t, 5*time.Second, "the datagram arrives", func() bool {
		resp, err := n.Client().Get(entry + "/udp")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return err == nil && strings.Contains(string(body), "myUdpvalue")
	})
	n.answers(t, entry+"/udp", "myUdpvalue")
}
