package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/rollout"
)

// NodeProbe has the facts of a node.
type NodeProbe struct {
	Node      string
	Volumes   map[string]VolumeProbe
	Names     []Reach
	Listening []int // TCP ports, of anybody in the node's own network
	// Local are the ranges of IPv4 addresses that the node takes for its own; nil if they
	// are unknown.
	Local []netip.Prefix
}

// VolumeProbe is the directory of a host volume.
type VolumeProbe struct {
	Path string
	Err  string // why it cannot be used
	UID  int
	Mode uint32 // permission bits
	// XAttr is yes, no, unknown without a program to try it with, untried
	// where the probe may not write; "" when nothing writes there.
	XAttr string
}

// ProbeOptions has the options of the job of a probe.
type ProbeOptions struct {
	// Driver is raw_exec, exec or docker; the first of them that a node has
	// when empty.
	Driver string
	Image  string // for docker; must have a shell
	// Timeout bounds how long the job may take on all nodes.
	Timeout time.Duration
}

// Probe runs a sysbatch job on all ready nodes, reads what it printed into
// f.Probes, and removes it, however it ends.
func Probe(ctx context.Context, c nomad.Clients, f *Facts, n Needs, o ProbeOptions) (err error) {
	driver := o.Driver
	for _, d := range []string{"raw_exec", "exec", "docker"} {
		if driver == "" && slices.ContainsFunc(f.Nodes, func(n Node) bool { return n.Ready() && n.Drivers[d] != nil && n.Drivers[d].Healthy }) {
			driver = d
		}
	}
	if driver == "" {
		return errors.New("no node has a healthy driver raw_exec, exec or docker to run the probe with")
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	job := probeJob(f, n, driver, o.Image)
	registered, _, err := c.Nomad.Jobs().EnforceRegister(job, 0, (&api.WriteOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("registering the job of the probe: %w", plain(err))
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if _, _, e := c.Nomad.Jobs().Deregister(*job.ID, true, (&api.WriteOptions{}).WithContext(after)); e != nil {
			err = errors.Join(err, fmt.Errorf("the job %s is left behind; nomad job stop -purge %s: %w", *job.ID, *job.ID, plain(e)))
		}
	}()
	allocs, err := ended(ctx, c.Nomad, *job.ID, registered.EvalID)
	if err != nil {
		return err
	}
	probes := map[string]*NodeProbe{}
	for _, stub := range allocs {
		text, err := output(ctx, c.Nomad, stub)
		name, ofVolume := strings.CutPrefix(stub.TaskGroup, volumeGroup)
		var p NodeProbe
		switch {
		case err != nil && !ofVolume:
			return fmt.Errorf("output of the probe on %s: %w", stub.NodeName, plain(err))
		case err != nil:
			p.Volumes = map[string]VolumeProbe{name: {Err: plain(err).Error()}}
		case ofVolume:
			p = readProbe(stub.NodeName, text, nil)
		default:
			p = readProbe(stub.NodeName, text, n.Names)
		}
		for name, v := range p.Volumes {
			v.Path = f.volumePath(stub.NodeID, name)
			p.Volumes[name] = v
		}
		switch all := probes[stub.NodeID]; {
		case all == nil:
			probes[stub.NodeID] = &p
		case ofVolume:
			maps.Copy(all.Volumes, p.Volumes)
		default:
			maps.Copy(p.Volumes, all.Volumes)
			*all = p
		}
	}
	f.Probes = []NodeProbe{}
	for _, p := range probes {
		f.Probes = append(f.Probes, *p)
	}
	slices.SortFunc(f.Probes, func(a, b NodeProbe) int { return strings.Compare(a.Node, b.Node) })
	return nil
}

// volumePath is the directory of a host volume on a node, "" when the node has
// no such volume.
func (f *Facts) volumePath(node, volume string) string {
	for _, n := range f.Nodes {
		if h := n.Volumes[volume]; n.ID == node && h != nil {
			return path.Clean(h.Path)
		}
	}
	return ""
}

// volumeGroup is the beginning of the names of groups that look at a volume.
const volumeGroup = "volume-"

func probeJob(f *Facts, n Needs, driver, image string) *api.Job {
	id := "drover-doctor-" + strings.ToLower(rand.Text()[:8])
	job := api.NewSysbatchJob(id, id, "", 100)
	job.Datacenters = []string{"*"}
	all := "all"
	job.NodePool = &all
	job.Constraints = []*api.Constraint{api.NewConstraint("${attr.kernel.name}", "=", "linux")}

	var script strings.Builder
	for _, v := range f.Volumes {
		asked, mode := request(n, v), "rw"
		if asked.ReadOnly {
			mode = "ro"
		}
		if driver != "raw_exec" {
			// The job sees only the volume that is mounted. There is a group for each, because a
			// node need not have all of them.
			const dir = "/drover-volume"
			g := probeGroup(volumeGroup+v.Name, driver, image, fmt.Sprintf("volume %s %s %s\n", quote(v.Name), dir, mode))
			g.Volumes = map[string]*api.VolumeRequest{"v": asked}
			g.Tasks[0].VolumeMounts = []*api.VolumeMount{{Volume: ptr("v"), Destination: ptr(dir), ReadOnly: ptr(asked.ReadOnly)}}
			job.AddTaskGroup(g)
			continue
		}
		for _, node := range f.Nodes {
			if dir := f.volumePath(node.ID, v.Name); dir != "" {
				fmt.Fprintf(&script, "[ \"$NODE\" != %s ] || volume %s %s %s\n", quote(node.ID), quote(v.Name), quote(dir), mode)
			}
		}
	}
	for _, name := range n.Names {
		host, port, ok := strings.Cut(name, ":")
		ports := []string{quote(port)}
		if !ok {
			ports = []string{"443", "80"}
		}
		fmt.Fprintf(&script, "name %s %s\n", quote(host), strings.Join(ports, " "))
	}
	if driver == "raw_exec" || driver == "docker" {
		script.WriteString("listening\nlocal_ranges\n")
	}
	return job.AddTaskGroup(probeGroup("probe", driver, image, script.String()))
}

// probeGroup runs the functions of probeScript.
func probeGroup(name, driver, image, calls string) *api.TaskGroup {
	task := api.NewTask("probe", driver)
	task.Resources = &api.Resources{CPU: ptr(20), MemoryMB: ptr(32)}
	task.RestartPolicy = &api.RestartPolicy{Attempts: ptr(0), Mode: ptr("fail")}
	task.LogConfig = &api.LogConfig{MaxFiles: ptr(1), MaxFileSizeMB: ptr(1)}
	task.Env = map[string]string{"NODE": "${node.unique.id}"}
	calls += "echo " + lastLine
	task.Config = map[string]any{"command": "/bin/sh", "args": []string{"${NOMAD_TASK_DIR}/probe.sh"}}
	if driver == "docker" {
		task.Config["image"], task.Config["network_mode"] = image, "host"
		// The container is removed when it has ended, now and then before Nomad has
		// begun to read its log.
		calls += "sleep 2\n"
	}
	task.Templates = []*api.Template{{
		EmbeddedTmpl: ptr(probeScript + calls + "exit 0\n"), DestPath: ptr("local/probe.sh"),
		LeftDelim: ptr(leftDelim), RightDelim: ptr(rightDelim),
	}}
	return api.NewTaskGroup(name, 1).AddTask(task)
}

// request is how the stack asks for a volume: for writing, when anything does.
func request(n Needs, volume Volume) *api.VolumeRequest {
	found, source := &api.VolumeRequest{ReadOnly: true}, cmp.Or(volume.Source, volume.Name)
	for _, j := range n.Jobs {
		for _, g := range j.Job.TaskGroups {
			for _, v := range g.Volumes {
				if v.Type == "host" && v.Source == source && (found.Source == "" || found.ReadOnly && !v.ReadOnly) {
					found = v
				}
			}
		}
	}
	return &api.VolumeRequest{Name: "v", Type: "host", Source: volume.Name, ReadOnly: found.ReadOnly, AccessMode: found.AccessMode, AttachmentMode: found.AttachmentMode}
}

func ptr[T any](v T) *T { return &v }

// quote is a word of the shell.
//
// The script is a template: a left delimiter within the word is taken apart.
func quote(s string) string {
	s = strings.ReplaceAll(s, "'", `'\''`)
	return "'" + strings.ReplaceAll(s, leftDelim, leftDelim[:1]+"''"+leftDelim[1:]) + "'"
}

// Delimiters of the template that a probe's script is, which is no template.
const (
	leftDelim  = "<%drover"
	rightDelim = "drover%>"
)

// lastLine is the last line that a probe prints.
const lastLine = "that is all\n"

// noDirectory is what probeScript prints for a volume without a directory.
const noDirectory = "there is no such directory"

// probeScript needs a POSIX shell. It reports other programs that are missing.
// Each line that it prints is one fact for readProbe.
const probeScript = `
has() { command -v "$1" >/dev/null 2>&1; }
volume() {
  if ! [ -d "$2" ]; then echo "volume $1 err ` + noDirectory + `"; return; fi
  echo "volume $1 stat $(stat -c '%u %a' "$2" 2>/dev/null)"
  [ "$3" = rw ] || return 0
  file="$2/.drover-doctor-$$"
  if ! (: >"$file") 2>/dev/null; then
    if [ "$(id -u)" = 0 ]; then echo "volume $1 err nothing can be written there"; else echo "volume $1 xattr untried"; fi
    return
  fi
  x=unknown
  if has setfattr; then
    x=no; setfattr -n user.drover -v 1 "$file" 2>/dev/null && x=yes
  elif has python3; then
    x=no; python3 -c 'import os,sys; os.setxattr(sys.argv[1], "user.drover", b"1")' "$file" 2>/dev/null && x=yes
  fi
  rm -f "$file"
  echo "volume $1 xattr $x"
}
name() {
  host=$1; shift
  if has getent; then
    found=$(getent ahosts "$host" | awk '{print $1}' | sort -u | tr '\n' ' ')
  elif has nslookup; then
    found=$(nslookup "$host" 2>/dev/null | awk '/^Name:/ {on=1} on && /^Address/ {print $NF}' | sort -u | tr '\n' ' ')
  else
    echo "name $host unknown"; return
  fi
  echo "name $host addresses $found"
  [ -n "$found" ] || return 0
  for port; do
    r=unknown
    if has bash && has timeout; then
      r=no; timeout 5 bash -c ": </dev/tcp/$host/$port" 2>/dev/null && r=yes
    elif has nc; then
      r=no; nc -z -w 5 "$host" "$port" >/dev/null 2>&1 && r=yes
    fi
    echo "name $host port $port $r"
  done
}
listening() { awk '$4 == "0A" {split($2, a, ":"); print "listen", a[2]}' /proc/net/tcp /proc/net/tcp6 2>/dev/null | sort -u; }
local_ranges() { awk '$1 == "|--" {a = $2} / host LOCAL/ {print "local", a $1}' /proc/net/fib_trie 2>/dev/null | sort -u; }
`

// ended waits until every allocation of the job has ended.
func ended(ctx context.Context, client *api.Client, id, eval string) ([]*api.AllocationListStub, error) {
	placed := false
	for index := uint64(0); ; {
		if !placed {
			e, _, err := client.Evaluations().Info(eval, (&api.QueryOptions{}).WithContext(ctx))
			if err != nil {
				return nil, fmt.Errorf("waiting for the probe: %w", plain(err))
			}
			placed = e.Status == "complete"
		}
		q := (&api.QueryOptions{WaitIndex: index, WaitTime: 5 * time.Second}).WithContext(ctx)
		allocs, meta, err := client.Jobs().Allocations(id, false, q)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				return nil, errors.New("the probe did not end in time; nomad job status " + id)
			}
			return nil, fmt.Errorf("waiting for the probe: %w", plain(err))
		}
		open := slices.ContainsFunc(allocs, func(a *api.AllocationListStub) bool {
			return a.ClientStatus == api.AllocClientStatusPending || a.ClientStatus == api.AllocClientStatusRunning
		})
		switch {
		case placed && !open && len(allocs) > 0:
			return allocs, nil
		case placed && len(allocs) == 0 && index > 0:
			return nil, errors.New("no node took the probe")
		}
		index = meta.LastIndex
	}
}

// output returns the output of the probe.
func output(ctx context.Context, client *api.Client, stub *api.AllocationListStub) (string, error) {
	if stub.ClientStatus != api.AllocClientStatusComplete {
		return "", fmt.Errorf("it is %s: %s", stub.ClientStatus, cmp.Or(rollout.TaskFailed(stub.TaskStates["probe"]), stub.ClientDescription))
	}
	// A driver's log can be later than its task.
	for late := time.Now().Add(15 * time.Second); ; {
		text, err := printed(ctx, client, stub)
		if before, ok := strings.CutSuffix(text, lastLine); ok || err != nil {
			return before, err
		}
		if time.Now().After(late) {
			return "", errors.New("not all of what it printed has arrived in its log")
		}
		timer := time.NewTimer(200 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", ctx.Err()
		}
	}
}

// printed returns the present contents of a log (GET /v1/client/fs/logs/:alloc_id), which takes
// read-logs: to read it as a file would take read-fs.
func printed(ctx context.Context, client *api.Client, stub *api.AllocationListStub) (string, error) {
	cancel := make(chan struct{})
	frames, errs := client.AllocFS().Logs(&api.Allocation{ID: stub.ID, NodeID: stub.NodeID}, false, "probe", api.FSLogNameStdout, api.OriginStart, 0, cancel, (&api.QueryOptions{}).WithContext(ctx))
	r := api.NewFrameReader(frames, errs, cancel)
	defer func() { _ = r.Close() }()
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return string(text), err
}

// readProbe reads the output of probeScript and ignores lines that it does not
// know: other programs may print to the same log.
func readProbe(node, text string, names []string) NodeProbe {
	p := NodeProbe{Node: node, Volumes: map[string]VolumeProbe{}}
	reached := map[string]*Reach{}
	for _, name := range names {
		host, _, _ := strings.Cut(name, ":")
		reached[host] = &Reach{Name: host, Err: errors.New("there is neither getent nor nslookup"), Ports: map[int]error{}}
	}
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) == 2 && w[0] == "listen":
			if port, err := strconv.ParseUint(w[1], 16, 16); err == nil {
				p.Listening = append(p.Listening, int(port))
			}
		case len(w) == 2 && w[0] == "local":
			if r, err := netip.ParsePrefix(w[1]); err == nil {
				p.Local = append(p.Local, r)
			}
		case len(w) >= 3 && w[0] == "name" && reached[w[1]] != nil:
			r := reached[w[1]]
			switch {
			case w[2] == "addresses" && len(w) == 3:
				r.Err = errors.New("no such host")
			case w[2] == "addresses":
				r.Addresses, r.Err = w[3:], nil
			case w[2] == "port" && len(w) == 5 && w[4] != "unknown":
				port, err := strconv.Atoi(w[3])
				if err == nil && w[4] == "no" {
					err = errors.New("no connection")
				}
				r.Ports[port] = err
			}
		case len(w) >= 4 && w[0] == "volume":
			v := p.Volumes[w[1]]
			switch w[2] {
			case "err":
				v.Err = strings.Join(w[3:], " ")
			case "xattr":
				v.XAttr = w[3]
			case "stat":
				v.UID, _ = strconv.Atoi(w[3])
				if len(w) > 4 {
					mode, _ := strconv.ParseUint(w[4], 8, 32)
					v.Mode = uint32(mode)
				}
			}
			p.Volumes[w[1]] = v
		}
	}
	slices.Sort(p.Listening)
	p.Listening = slices.Compact(p.Listening)
	for _, name := range names {
		host, _, _ := strings.Cut(name, ":")
		p.Names = append(p.Names, *reached[host])
	}
	return p
}
