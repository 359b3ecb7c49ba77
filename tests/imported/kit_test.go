package imported

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
	"golang.org/x/sys/unix"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// The addresses of the cluster: the servers, and the first node less one.
const (
	serverAddress = "10.77.0.1"
	nodeAddress   = "10.77.0.%d"
	mirrorAddress = serverAddress + ":5000"
	// The range of the mesh, which an operator makes local when they prepare a node.
	meshNetwork = "198.18.0.0/16"
)

// world is a cluster: a server of Nomad and of Consul beside the test, and nodes with
// an engine of Docker, each in a network of its own.
type world struct {
	Dir    string // of the programs and the logs
	Nodes  []*node
	Nomad  *api.Client
	Consul *capi.Client
	Drover devtest.Program
	images *registry
	slots  chan struct{} // of [world.run]
}

// node is a client of Nomad. It is also the only node of the datacenter of its name.
type node struct {
	Name    string // n1, n2 …
	Address string
	pid     int
	netns   int // file descriptor
	dir     string
	world   *world
}

// newWorld starts a cluster with nodes. It ends with the test.
func newWorld(t *testing.T, nodes int) *world {
	t.Helper()
	devtest.NeedsServers(t)
	if os.Getenv(envStage) != "tests" {
		t.Skip("network namespaces need root")
	}
	w := &world{Dir: os.Getenv(envDir), images: &registry{manifests: map[string][]byte{}, blobs: map[string][]byte{}}, slots: make(chan struct{}, 3)}
	w.Drover = devtest.Program{Path: filepath.Join(w.Dir, "drover"), Dir: t.TempDir(), Env: []string{
		"NOMAD_ADDR=http://" + serverAddress + ":4646", "CONSUL_HTTP_ADDR=" + serverAddress + ":8500",
	}}
	for _, program := range []string{"dockerd", "/usr/lib/cni/portmap", "iptables", "ip", "haproxy"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v (Debian: apt-get install --no-install-recommends docker.io containernetworking-plugins iptables iproute2 haproxy)", err)
		}
	}
	devtest.WaitCalm(t)
	began := time.Now()
	must(t, run("ip", "link", "add", "hub", "type", "bridge"))
	must(t, run("ip", "addr", "add", serverAddress+"/24", "dev", "hub"))
	must(t, run("ip", "link", "set", "hub", "up"))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", mirrorAddress)
	must(t, err)
	mirror := &http.Server{Handler: w.images, ReadHeaderTimeout: time.Minute}
	go func() { _ = mirror.Serve(listener) }()
	t.Cleanup(func() { _ = mirror.Close() })

	w.start(t, "consul-server", nil, filepath.Join(w.Dir, "consul"), "agent", "-config-file",
		w.write(t, "consul-server.hcl", consulConfig("server", serverAddress, serverAddress, "/run/consul")+"server = true\nbootstrap_expect = 1\nports {\n  dns = 53\n}\n"))
	resolvers := w.write(t, "resolv.conf", "nameserver "+serverAddress+"\n")
	for i := range nodes {
		w.Nodes = append(w.Nodes, w.newNode(t, i))
		w.Nodes[i].Must(t, "mount", "--bind", resolvers, "/etc/resolv.conf")
	}
	for _, n := range w.Nodes {
		n.startDocker(t)
	}
	w.start(t, "nomad-server", nil, filepath.Join(w.Dir, "nomad"), "agent", "-config",
		w.write(t, "nomad-server.hcl", nomadConfig("server", "dc1", serverAddress, serverAddress, "/run/nomad")+"server {\n  enabled = true\n  bootstrap_expect = 1\n}\n"))
	w.Nomad, err = api.NewClient(&api.Config{Address: "http://" + serverAddress + ":4646"})
	must(t, err)
	w.Consul, err = capi.NewClient(&capi.Config{Address: serverAddress + ":8500"})
	must(t, err)
	// A client that finds no leader retries only after 15 seconds.
	devtest.Until(t, time.Minute, "Nomad has a leader", func() bool {
		leader, err := w.Nomad.Status().Leader()
		return err == nil && leader != ""
	})
	pause, err := image{Files: []file{{Path: "pause", Source: filepath.Join(w.Dir, "pause")}}, Entrypoint: []string{"/pause"}}.pack()
	must(t, err)
	for _, n := range w.Nodes {
		n.load(t, "registry.k8s.io/pause-"+runtime.GOARCH+":3.3", pause)
		n.startAgents(t)
	}
	haproxy, err := exec.LookPath("haproxy")
	must(t, err)
	// The default of the mesh's variable mesh_image.
	w.Image(t, "haproxy:2.8.12", image{Files: program(t, "usr/local/sbin/haproxy", haproxy), Cmd: []string{"haproxy"}})
	for _, name := range []string{"server", "client"} {
		w.Image(t, "composespec/conformance-tests-"+name, image{Files: []file{{Path: name, Source: filepath.Join(w.Dir, name)}}, Entrypoint: []string{"/" + name}})
	}
	devtest.Until(t, 2*time.Minute, "all nodes are ready with Docker", func() bool {
		list, _, err := w.Nomad.Nodes().List(nil)
		ready := 0
		for _, n := range list {
			if n.Status == "ready" && n.Drivers["docker"] != nil && n.Drivers["docker"].Healthy {
				ready++
			}
		}
		return err == nil && ready == nodes
	})
	t.Logf("%d nodes are ready after %s", nodes, time.Since(began).Round(100*time.Millisecond))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a configuration file and returns its path.
func (w *world) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(w.Dir, name)
	must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// start starts a program, on a node if one is given, which is killed when the test is
// over. Its log is shown if the test fails.
func (w *world) start(t *testing.T, name string, n *node, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(w.Dir, name+".log"))
	must(t, err)
	if n != nil {
		args = n.args(args)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("%s:\n%s", name, strings.Join(lines[max(0, len(lines)-10):], "\n"))
		}
	})
}

func consulConfig(name, bind, client, data string) string {
	return fmt.Sprintf(`node_name = %q
data_dir = %q
bind_addr = %q
client_addr = %q
disable_update_check = true
leave_on_terminate = false
performance {
  raft_multiplier = 1
}
`, name, data, bind, client)
}

func nomadConfig(name, datacenter, address, consul, data string) string {
	return fmt.Sprintf(`name = %q
datacenter = %q
bind_addr = %q
data_dir = %q
disable_update_check = true
leave_on_terminate = false
advertise {
  http = %[3]q
  rpc = %[3]q
  serf = %[3]q
}
consul {
  address = "%[5]s:8500"
}
`, name, datacenter, address, data, consul)
}

// newNode makes the namespaces of a node and connects it to the servers.
func (w *world) newNode(t *testing.T, index int) *node {
	t.Helper()
	n := &node{Name: "n" + strconv.Itoa(index+1), Address: fmt.Sprintf(nodeAddress, index+11), dir: "/run/node", world: w}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envStage+"=node")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("node %s: got %q, want ready: %v", n.Name, line, err)
	}
	n.pid = cmd.Process.Pid
	n.netns, err = unix.Open(fmt.Sprintf("/proc/%d/ns/net", n.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { _ = unix.Close(n.netns) })
	must(t, run("ip", "link", "add", "to-"+n.Name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(n.pid)))
	must(t, run("ip", "link", "set", "to-"+n.Name, "master", "hub", "up"))
	n.Must(t, "ip", "addr", "add", n.Address+"/24", "dev", "eth0")
	n.Must(t, "ip", "link", "set", "eth0", "up")
	n.Must(t, "ip", "route", "add", "default", "via", serverAddress)
	n.Must(t, "ip", "route", "replace", "local", meshNetwork, "dev", "lo")
	n.Must(t, "mkdir", n.dir)
	return n
}

// args is a command that runs another one on the node.
func (n *node) args(args []string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(n.pid), "--mount", "--net", "--"}, args...)
}

// Must runs a program on the node and returns its output. A failure ends the test.
func (n *node) Must(t *testing.T, args ...string) string {
	t.Helper()
	all := n.args(args)
	out, err := exec.CommandContext(t.Context(), all[0], all[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", strings.Join(args, " "), n.Name, err, out)
	}
	return string(out)
}

// Dial connects from the node.
func (n *node) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = unix.Setns(n.netns, unix.CLONE_NEWNET); err == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		}
	}()
	<-done
	return conn, err
}

// Client returns a client whose requests come from the node. It keeps no connections.
func (n *node) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.Dial, DisableKeepAlives: true}, Timeout: 30 * time.Second}
}

// startDocker starts the engine. Old jobs use its own network; the others use those that
// Nomad makes.
func (n *node) startDocker(t *testing.T) {
	t.Helper()
	n.world.start(t, "docker-"+n.Name, n, "dockerd", "--data-root", n.dir+"/docker", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
		"-H", "unix:///run/docker.sock", "--storage-driver=overlay2", "--ip6tables=false",
		"--registry-mirror=http://"+mirrorAddress)
}

// load gives an image to the engine, once that answers.
func (n *node) load(t *testing.T, name string, p packed) {
	t.Helper()
	devtest.Until(t, time.Minute, "dockerd answers on "+n.Name, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		args := n.args([]string{"docker", "-H", "unix:///run/docker.sock", "version"})
		return exec.CommandContext(ctx, args[0], args[1:]...).Run() == nil
	})
	text, err := p.archive(name)
	must(t, err)
	args := n.args([]string{"docker", "-H", "unix:///run/docker.sock", "load"})
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Stdin = bytes.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker load %s on %s: %v\n%s", name, n.Name, err, out)
	}
}

// startAgents starts the clients of Consul and Nomad.
func (n *node) startAgents(t *testing.T) {
	t.Helper()
	w := n.world
	w.start(t, "consul-"+n.Name, n, filepath.Join(w.Dir, "consul"), "agent", "-config-file",
		w.write(t, "consul-"+n.Name+".hcl", consulConfig(n.Name, n.Address, "127.0.0.1", n.dir+"/consul")+fmt.Sprintf("retry_join = [%q]\nretry_interval = \"1s\"\n", serverAddress)))
	devtest.Until(t, time.Minute, "Consul answers on "+n.Name, func() bool {
		resp, err := n.Client().Get("http://127.0.0.1:8500/v1/status/leader")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	w.start(t, "nomad-"+n.Name, n, filepath.Join(w.Dir, "nomad"), "agent", "-config",
		w.write(t, "nomad-"+n.Name+".hcl", nomadConfig(n.Name, n.Name, n.Address, "127.0.0.1", n.dir+"/nomad")+fmt.Sprintf(`client {
  enabled = true
  gc_disk_usage_threshold = 99
  servers = ["%s:4647"]
  network_interface = "eth0"
  cni_path = "/usr/lib/cni"
  cpu_total_compute = 20000
  template {
    disable_file_sandbox = true # a process for each template that is written
  }
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
    "driver.allowlist" = "raw_exec,docker"
  }
}
plugin "raw_exec" {
  config {
    enabled = true
  }
}
plugin "docker" {
  config {
    gc {
      image = false # the image of the network namespaces comes from no registry
    }
    volumes {
      enabled = true
    }
  }
}
`, serverAddress)))
}

// Image makes an image that the nodes pull by this name of Docker Hub.
func (w *world) Image(t *testing.T, name string, i image) {
	t.Helper()
	p, err := i.pack()
	must(t, err)
	w.images.add(name, p)
}

// run is [testing.T.Run] of a test with a stack of its own. Three run at once: with all of
// them, two cores do little but start the probes of those that wait.
func (w *world) run(t *testing.T, name string, test func(*testing.T)) {
	t.Helper()
	w.slots <- struct{}{}
	defer func() { <-w.slots }()
	t.Run(name, test)
}

// Import imports files and returns the directory of the stack, which has the name.
func (w *world) Import(t *testing.T, name string, args ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	w.Drover.Want(t, 0, append([]string{"import", "--name", name, "--out", out}, args...)...)
	return out
}

// Deploy deploys a stack, with its volumes and secrets. args are further flags. The
// stack is destroyed when the test is over, unless the test has done so.
func (w *world) Deploy(t *testing.T, dir string, args ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			w.explain(t, filepath.Base(dir))
		}
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), w.Drover.Path, "destroy", filepath.Base(dir), "-y")
		cmd.Env = append(os.Environ(), w.Drover.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("destroying %s: %v\n%s", dir, err, out)
		}
	})
	if _, err := os.Stat(filepath.Join(dir, "secrets.yaml")); err == nil {
		w.Drover.Want(t, 0, "secrets", "import", dir, filepath.Join(dir, "secrets.yaml"))
	}
	w.Drover.Want(t, 0, append([]string{"deploy", dir, "--create-volumes", "-y", "--service-timeout", "5m"}, args...)...)
}

// on is the flag by which an imported stack runs on these nodes only.
func on(nodes ...*node) []string {
	var names []string
	for _, n := range nodes {
		names = append(names, strconv.Quote(n.Name))
	}
	return []string{"--var", "datacenters=[" + strings.Join(names, ",") + "]"}
}

// Destroy destroys a stack.
func (w *world) Destroy(t *testing.T, dir string) {
	t.Helper()
	w.Drover.Want(t, 0, "destroy", filepath.Base(dir), "-y")
}

// explain writes what the tasks of a stack say into the log of a failed test.
func (w *world) explain(t *testing.T, stack string) {
	allocs, _, err := w.Nomad.Allocations().List(nil)
	if err != nil {
		t.Log(err)
		return
	}
	for _, a := range allocs {
		if !strings.HasPrefix(a.JobID, stack+"-") && !strings.HasSuffix(a.JobID, "-"+stack) {
			continue
		}
		for task, s := range a.TaskStates {
			var events []string
			for _, e := range s.Events {
				events = append(events, e.DisplayMessage)
			}
			t.Logf("%s %s task %s: %s: %s", a.JobID, a.ID[:8], task, s.State, strings.Join(events, "; "))
		}
	}
}
