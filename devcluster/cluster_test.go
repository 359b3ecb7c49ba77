//go:build linux

package devcluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// until polls f, which says what is still missing, until that is nothing.
func until(t testing.TB, f func() error) {
	t.Helper()
	const patience = 2 * time.Minute // for a machine that has much else to do
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %s: %v", patience, err)
		case <-tick.C:
		}
	}
}

func nomadClient(t testing.TB, c *devcluster.Cluster) *api.Client {
	t.Helper()
	n, err := api.NewClient(c.NomadConfig())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func consulClient(t testing.TB, c *devcluster.Cluster) *capi.Client {
	t.Helper()
	k, err := capi.NewClient(c.ConsulConfig())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// job is a service that runs as the user nobody and writes a line per start into the
// cluster's data directory.
func job(count int) *api.Job {
	j := api.NewServiceJob("beat", "beat", "", 50)
	j.Datacenters = []string{"*"}
	g := api.NewTaskGroup("g", count)
	g.Networks = []*api.NetworkResource{{DynamicPorts: []api.Port{{Label: "http"}}}}
	g.Services = []*api.Service{{Name: "beat", PortLabel: "http"}}
	task := api.NewTask("t", "raw_exec")
	task.User = "nobody"
	if os.Geteuid() != 0 {
		task.User = ""
	}
	task.SetConfig("command", "/bin/sh")
	// The sleep is not the shell's own, so that there is a child too.
	task.SetConfig("args", []string{"-c", `mkdir -p "$0" && echo start >>"$0/starts" && while :; do sleep 1; done`, "${meta.drover_data}/beat-${NOMAD_ALLOC_INDEX}"})
	cpu, mem := 20, 16
	task.Resources = &api.Resources{CPU: &cpu, MemoryMB: &mem}
	g.AddTask(task)
	j.AddTaskGroup(g)
	return j
}

func starts(c *devcluster.Cluster, index int) int {
	b, _ := os.ReadFile(filepath.Join(c.DataDir(), fmt.Sprintf("beat-%d", index), "starts"))
	return strings.Count(string(b), "start\n")
}

func register(t testing.TB, c *devcluster.Cluster, j *api.Job) {
	t.Helper()
	if _, _, err := nomadClient(t, c).Jobs().Register(j, nil); err != nil {
		t.Fatal(err)
	}
}

func started(c *devcluster.Cluster, index, times int) func() error {
	return func() error {
		if n := starts(c, index); n < times {
			return fmt.Errorf("the task was started %d times, want %d", n, times)
		}
		return nil
	}
}

// noLeftovers looks for agents by their command lines, too, which is not how
// Down and Leftovers find them. Their ports tell nothing: another test's cluster
// may have them at once.
func noLeftovers(t testing.TB, c *devcluster.Cluster) {
	t.Helper()
	left, err := c.Leftovers()
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes: %v", err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && bytes.Contains(line, []byte(c.Dir()+"/")) {
			t.Errorf("%s still runs: %q", filepath.Dir(file), line)
		}
	}
}

func up(t testing.TB, opts devcluster.Options) *devcluster.Cluster {
	t.Helper()
	c, err := devcluster.Up(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	if c.AlreadyRunning {
		t.Error("got AlreadyRunning for a new cluster")
	}
	if _, err := consulClient(t, c).KV().Put(&capi.KVPair{Key: "a/b", Value: []byte("kept")}, nil); err != nil {
		t.Fatal(err)
	}
	register(t, c, job(1))
	until(t, started(c, 0, 1))
	st := c.Status(t.Context())
	if st.State != devcluster.StateRunning || len(st.Agents) != 3 {
		t.Errorf("status is %+v", st)
	}
	for _, a := range st.Agents {
		if a.State != devcluster.StateRunning || a.PID == 0 {
			t.Errorf("agent %+v does not run", a)
		}
	}
	node := firstNode(t, c)
	for name, want := range map[string]string{
		"drover_bin": c.BinDir(), "drover_data": c.DataDir(), "drover_loopback": c.Loopback(),
		"consul_http_addr": strings.TrimPrefix(c.ConsulAddr(), "http://"),
	} {
		if node.Meta[name] != want {
			t.Errorf("client meta %s is %q, want %q", name, node.Meta[name], want)
		}
	}
	if !node.Drivers["raw_exec"].Healthy {
		t.Errorf("raw_exec is %+v", node.Drivers["raw_exec"])
	}

	again := up(t, opts)
	if !again.AlreadyRunning || again.NomadAddr() != c.NomadAddr() {
		t.Errorf("a second up says %v, %s", again.AlreadyRunning, again.NomadAddr())
	}
	other := opts
	other.Shape = devcluster.Shape{Clients: 2}
	var invalid *devcluster.InvalidError
	if _, err := devcluster.Up(t.Context(), other); !errors.As(err, &invalid) {
		t.Errorf("another shape of a running cluster: %v", err)
	}

	if err := devcluster.Down(t.Context(), opts, false); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
	if st := c.Status(t.Context()); st.State != devcluster.StateStopped {
		t.Errorf("after down the state is %s", st.State)
	}
	if err := devcluster.Down(t.Context(), opts, false); err != nil {
		t.Errorf("a second down: %v", err)
	}

	c2 := up(t, opts)
	if c2.NomadAddr() != c.NomadAddr() || c2.ConsulAddr() != c.ConsulAddr() {
		t.Errorf("the ports changed: %s, %s", c2.NomadAddr(), c2.ConsulAddr())
	}
	kv, _, err := consulClient(t, c2).KV().Get("a/b", nil)
	if err != nil || kv == nil || string(kv.Value) != "kept" {
		t.Errorf("Consul forgot: %v, %v", kv, err)
	}
	until(t, started(c2, 0, 2)) // the job is back

	if err := devcluster.Down(t.Context(), opts, true); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
	if _, err := os.Stat(opts.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after a wipe the directory is there: %v", err)
	}
	if err := devcluster.Down(t.Context(), opts, true); !errors.Is(err, devcluster.ErrNoCluster) {
		t.Errorf("down of no cluster: %v", err)
	}
}

func firstNode(t testing.TB, c *devcluster.Cluster) *api.Node {
	t.Helper()
	n := nomadClient(t, c)
	nodes, _, err := n.Nodes().List(nil)
	if err != nil || len(nodes) == 0 {
		t.Fatalf("nodes: %v, %v", nodes, err)
	}
	node, _, err := n.Nodes().Info(nodes[0].ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func TestCancelDuringUp(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	opts.Throwaway = false // to look at what is left
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	for _, at := range []string{"consul", "nomad-client"} {
		ctx, cancel := context.WithCancel(t.Context())
		opts.Events = func(e devcluster.Event) {
			if e.Subject == at {
				cancel()
			}
		}
		_, err := devcluster.Up(ctx, opts)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("up cancelled at %s: %v", at, err)
		}
		c, err := devcluster.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		noLeftovers(t, c)
	}
}

// TestSupervisorKilled kills the process that everything hangs on, with a task
// running.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	register(t, c, job(1))
	until(t, started(c, 0, 1))
	kill := func() {
		t.Helper()
		st := c.Status(t.Context())
		if err := syscall.Kill(st.SupervisorPID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// The agents die with it; the task does not.
		for _, a := range st.Agents {
			until(t, func() error {
				if err := syscall.Kill(a.PID, 0); err == nil && !zombie(a.PID) {
					return fmt.Errorf("%s outlives the supervisor", a.Name)
				}
				return nil
			})
		}
		left, err := c.Leftovers()
		if len(left) == 0 {
			t.Fatalf("the task is not recognized as the cluster's (%v)", err)
		}
	}
	kill()
	if st := c.Status(t.Context()); st.State != devcluster.StateStopped {
		t.Errorf("without a supervisor the state is %s", st.State)
	}
	c = up(t, opts)
	until(t, started(c, 0, 2))
	kill()
	if err := devcluster.Down(t.Context(), opts, false); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

const envHelper = "DEVCLUSTER_TEST_DIR"

// TestHelper is the process that TestLifeline kills.
func TestHelper(t *testing.T) {
	dir := os.Getenv(envHelper)
	if dir == "" {
		t.Skip("runs as a part of TestLifeline")
	}
	c := devtest.Cluster(t, devcluster.Options{Dir: dir})
	register(t, c, job(1))
	until(t, started(c, 0, 1))
	fmt.Println("running")
	select {}
}

func TestLifeline(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestHelper$", "-test.v")
	cmd.Env = append(os.Environ(), envHelper+"="+opts.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var seen strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(seen.String(), "running\n"); {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("the helper ended: %v\n%s", err, seen.String())
		}
	}
	c, err := devcluster.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, func() error {
		if _, err := os.Stat(opts.Dir); err == nil {
			return errors.New("the directory is still there")
		}
		return nil
	})
	noLeftovers(t, c)
}

func TestTwoClusters(t *testing.T) {
	t.Parallel()
	type result struct {
		c   *devcluster.Cluster
		err error
	}
	results := make(chan result)
	for range 2 {
		opts := devtest.Options(t, devcluster.Options{})
		t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
		go func() {
			c, err := devcluster.Up(t.Context(), opts)
			results <- result{c, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil {
		t.Fatal(a.err, b.err)
	}
	if a.c.NomadAddr() == b.c.NomadAddr() || a.c.ConsulAddr() == b.c.ConsulAddr() || a.c.Loopback() == b.c.Loopback() {
		t.Errorf("two clusters share an address: %s and %s", a.c.NomadAddr(), b.c.NomadAddr())
	}
	if na, nb := firstNode(t, a.c), firstNode(t, b.c); na.ID == nb.ID {
		t.Error("two clusters share a node")
	}
	if err := a.c.Down(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	register(t, b.c, job(1)) // the other one is not disturbed
	until(t, started(b.c, 0, 1))
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	opts := devtest.Options(t, devcluster.Options{})
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	c := up(t, opts)
	if err := c.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(c.NomadAddr())
	ln, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = devcluster.Up(t.Context(), opts)
	if err == nil {
		t.Fatal("up on a port that is taken")
	}
	for _, want := range []string{"port " + u.Port() + " ", fmt.Sprintf("process %d ", os.Getpid())} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	noLeftoverProcesses(t, c)
	ln.Close()
	c = up(t, opts)
	if err := c.Down(t.Context(), true); err != nil {
		t.Error(err)
	}
}

func noLeftoverProcesses(t testing.TB, c *devcluster.Cluster) {
	t.Helper()
	if left, err := c.Leftovers(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func needsRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

func TestClients(t *testing.T) {
	needsRoot(t, "several clients have a network interface each")
	t.Parallel()
	c := devtest.Cluster(t, devcluster.Options{Shape: devcluster.Shape{Clients: 3, Datacenters: []string{"dc1", "dc2"}}})
	nodes, _, err := nomadClient(t, c).Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	perDC := map[string]int{}
	for _, n := range nodes {
		perDC[n.Datacenter]++
	}
	if perDC["dc1"] != 2 || perDC["dc2"] != 1 {
		t.Errorf("clients per datacenter: %v", perDC)
	}

	// The same port on every client at once, each in Consul and staying there.
	j := job(3)
	g := j.TaskGroups[0]
	g.Networks = []*api.NetworkResource{{ReservedPorts: []api.Port{{Label: "http", Value: 18080}}}}
	register(t, c, j)
	for i := range 3 {
		until(t, started(c, i, 1))
	}
	instances := func() error {
		s, _, err := consulClient(t, c).Health().Service("beat", "", true, nil)
		addrs := map[string]bool{}
		for _, e := range s {
			addrs[e.Service.Address] = true
		}
		if err == nil && len(addrs) != 3 {
			err = fmt.Errorf("Consul has instances on %v, want 3 addresses", addrs)
		}
		return err
	}
	until(t, instances)
	// A client that is killed before it has written down what it started starts
	// it again; once Nomad says "running" it has.
	until(t, func() error {
		allocs, _, err := nomadClient(t, c).Jobs().Allocations("beat", false, nil)
		for _, a := range allocs {
			if err == nil && a.ClientStatus != api.AllocClientStatusRunning {
				err = fmt.Errorf("an allocation is %s", a.ClientStatus)
			}
		}
		return err
	})

	// One agent at a time can be broken and mended; tasks do not notice.
	const client = "nomad-client-2"
	state := func() (devcluster.State, int) {
		for _, a := range c.Agents(t.Context()) {
			if a.Name == client {
				return a.State, a.PID
			}
		}
		t.Fatalf("there is no %s", client)
		return "", 0
	}
	_, pid := state()
	if err := c.Stop(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	until(t, func() error {
		if s, _ := state(); s != devcluster.StatePaused {
			return fmt.Errorf("a paused agent is %s", s)
		}
		return nil
	})
	if err := c.Cont(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if s, p := state(); s != devcluster.StateExited || p != 0 {
		t.Errorf("a killed agent is %s with pid %d", s, p)
	}
	if err := c.Kill(t.Context(), client); err == nil {
		t.Error("killing a dead agent is no error")
	}
	if err := c.Restart(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	if s, p := state(); s != devcluster.StateRunning || p == pid {
		t.Errorf("a restarted agent is %s with pid %d", s, p)
	}
	if err := c.Restart(t.Context(), "nomad-server-1"); err != nil {
		t.Fatal(err)
	}
	until(t, instances)
	for i := range 3 {
		if n := starts(c, i); n != 1 {
			t.Errorf("task %d was started %d times", i, n)
		}
	}
	if err := c.Restart(t.Context(), "nomad-client-9"); err == nil {
		t.Error("restarting an agent that is not there is no error")
	}
	if err := c.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	prefix := strings.TrimSuffix(c.NomadAddr()[len("http://"):], ":") // 127.1xx.0.31:port
	prefix = prefix[:strings.LastIndex(prefix, ".")+1]
	for _, l := range links {
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			if strings.HasPrefix(a.String(), prefix) {
				t.Errorf("interface %s with %s is left", l.Name, a)
			}
		}
	}
}

func TestRegions(t *testing.T) {
	needsRoot(t, "several clients have a network interface each")
	t.Parallel()
	c := devtest.Cluster(t, devcluster.Options{Shape: devcluster.Shape{Regions: []string{"eu", "us"}}})
	regions := c.Regions()
	if len(regions) != 2 || regions[0].Region != "eu" || regions[1].Region != "us" || regions[0].NomadAddr == regions[1].NomadAddr {
		t.Fatalf("regions are %+v", regions)
	}
	// One region's server answers for the other.
	n := nomadClient(t, c)
	for _, r := range regions {
		nodes, _, err := n.Nodes().List(&api.QueryOptions{Region: r.Region})
		if err != nil || len(nodes) != 1 {
			t.Errorf("region %s, asked in eu, has nodes %v (%v)", r.Region, nodes, err)
		}
		k := consulClient(t, c)
		if _, _, err := k.Catalog().Nodes(&capi.QueryOptions{Datacenter: r.Region}); err != nil {
			t.Errorf("Consul of %s, asked in eu: %v", r.Region, err)
		}
	}
	env, err := c.Env("us")
	if err != nil || !strings.Contains(strings.Join(env, "\n"), "NOMAD_REGION=us") {
		t.Errorf("env of us is %v, %v", env, err)
	}
	if _, err := c.Env("asia"); err == nil {
		t.Error("env of a region that is not there is no error")
	}
}

// TestAgentFails starts a Nomad that says why it cannot.
func TestAgentFails(t *testing.T) {
	devtest.NeedsServers(t)
	bin := t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" = version ] && { echo Nomad v1.11.3; exit; }\necho 'the moon is full' >&2\nexit 3\n"
	devtest.Script(t, filepath.Join(bin, "nomad"), script)
	// Consul as it is: building it here would be a different test.
	if consul, err := (devcluster.Tools{}).Path(t.Context(), devcluster.Consul); err != nil {
		t.Fatal(err)
	} else if err := os.Symlink(consul, filepath.Join(bin, "consul")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	opts := devtest.Options(t, devcluster.Options{})
	opts.Throwaway = false // to look at what is left
	t.Cleanup(func() { devtest.Remove(t, opts.Dir) })
	_, err := devcluster.Up(t.Context(), opts)
	if err == nil || !strings.Contains(err.Error(), "nomad-server ended (exit code 3)") || !strings.Contains(err.Error(), "the moon is full") {
		t.Errorf("up with a Nomad that fails: %v", err)
	}
	c, err := devcluster.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, c)
}

// TestTaskEnvironment: what is in the user's environment is not in a task's.
func TestTaskEnvironment(t *testing.T) {
	t.Setenv("NOMAD_TOKEN", "not-for-tasks")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-for-tasks")
	c := devtest.Cluster(t, devcluster.Options{})
	register(t, c, job(1))
	until(t, started(c, 0, 1))
	if sockets, _ := filepath.Glob(filepath.Join(c.Dir(), "alloc", "*", "t", "secrets", "api.sock")); len(sockets) != 1 {
		t.Errorf("the task's API sockets are %v", sockets)
	}
	left, _ := c.Leftovers()
	if len(left) == 0 {
		t.Fatal("no process found")
	}
	for _, p := range left {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if strings.Contains(string(env), "not-for-tasks") && !strings.Contains(p.Command, "devcluster.test") {
			t.Errorf("the environment of %s has a secret of the user's", p)
		}
	}
	// Host volumes are made on request.
	vol := &api.HostVolume{Name: "data", PluginID: "mkdir", NodePool: "default",
		RequestedCapabilities: []*api.HostVolumeCapability{{AttachmentMode: api.HostVolumeAttachmentModeFilesystem, AccessMode: api.HostVolumeAccessModeSingleNodeWriter}},
		Parameters:            map[string]string{"mode": "0770"}}
	if _, _, err := nomadClient(t, c).HostVolumes().Create(&api.HostVolumeCreateRequest{Volume: vol}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, func() error {
		if dirs, _ := filepath.Glob(filepath.Join(c.Dir(), "volumes", "*")); len(dirs) != 1 {
			return fmt.Errorf("volumes are %v", dirs)
		}
		return nil
	})
	res, err := http.Get(c.NomadAddr() + "/v1/agent/self")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), `"Name":"nomad-server.global"`) {
		t.Errorf("the server at %s is not the cluster's", c.NomadAddr())
	}
}
