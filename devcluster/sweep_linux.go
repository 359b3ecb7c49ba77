package devcluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pids lists all processes.
func pids() []int {
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// command is the command line of a process, shortened.
func command(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	s := strings.TrimSpace(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})))
	if s == "" {
		b, _ = os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		s = strings.TrimSpace(string(b))
	}
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100]) + "…"
	}
	return s
}

// procStat is what /proc/<pid>/stat says.
type procStat struct {
	state byte
	ppid  int
	tty   int
}

func stat(pid int) (procStat, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, false
	}
	// The name in brackets may hold anything, brackets too.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 5 {
		return procStat{}, false
	}
	ppid, _ := strconv.Atoi(f[1])
	tty, _ := strconv.Atoi(f[4])
	return procStat{state: f[0][0], ppid: ppid, tty: tty}, true
}

// finder recognizes the processes of one cluster.
type finder struct {
	l      *layout
	allocs []string
	nomad  string // path of the nomad program
	keep   map[int]bool
	root   int // the supervisor, whose descendants belong to the cluster; 0 for none
}

// find looks for processes of the cluster; keep are not reported.
func (l *layout) find(root int, keep ...int) *finder {
	f := &finder{l: l, root: root, nomad: l.Programs[Nomad], keep: map[int]bool{os.Getpid(): true}}
	for _, pid := range keep {
		f.keep[pid] = true
	}
	for _, pattern := range []string{l.path("alloc", "*"), l.path("alloc", "*", "*")} {
		dirs, _ := filepath.Glob(pattern)
		for _, d := range dirs {
			if id := filepath.Base(d); len(id) == 36 && strings.Count(id, "-") == 4 {
				f.allocs = append(f.allocs, id)
			}
		}
	}
	return f
}

// belongs reports whether the process itself carries a sign of the cluster:
//   - the marker in its environment, which agents pass on to their helpers
//     and to raw_exec tasks;
//   - an allocation of this cluster in its environment (tasks of exec and
//     docker) or as the name of its control group;
//   - a root directory inside the cluster (exec);
//   - an orphan without a terminal that works in an allocation's directory.
//
// A user's shell in the directory has none of these.
func (f *finder) belongs(pid int) bool {
	if f.keep[pid] {
		return false
	}
	st, ok := stat(pid)
	if !ok || st.state == 'Z' || st.state == 'X' {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	env, _ := os.ReadFile(dir + "environ")
	for v := range bytes.SplitSeq(env, []byte{0}) {
		name, value, _ := bytes.Cut(v, []byte{'='})
		switch string(name) {
		case envMarker:
			if string(value) == f.l.ID {
				return true
			}
		case "NOMAD_ALLOC_ID":
			if slices.Contains(f.allocs, string(value)) {
				return true
			}
		}
	}
	cgroup, _ := os.ReadFile(dir + "cgroup")
	for _, id := range f.allocs {
		if bytes.Contains(cgroup, []byte(id)) {
			return true
		}
	}
	if root, err := os.Readlink(dir + "root"); err == nil && f.inside(root) {
		return true
	}
	if st.ppid == 1 && st.tty == 0 {
		if cwd, err := os.Readlink(dir + "cwd"); err == nil && f.inside(cwd) {
			for _, id := range f.allocs {
				if strings.Contains(cwd, "/"+id+"/") {
					return true
				}
			}
		}
	}
	return false
}

func (f *finder) inside(path string) bool {
	return strings.HasPrefix(path, f.l.dir+"/")
}

// all returns every process of the cluster: those that show it, and their
// descendants and the supervisor's.
func (f *finder) all() []int {
	children := map[int][]int{}
	var todo []int
	for _, pid := range pids() {
		if st, ok := stat(pid); ok && st.state != 'Z' && st.state != 'X' {
			children[st.ppid] = append(children[st.ppid], pid)
		}
		if f.belongs(pid) {
			todo = append(todo, pid)
		}
	}
	if f.root != 0 {
		todo = append(todo, children[f.root]...)
	}
	seen := map[int]bool{}
	var found []int
	for len(todo) > 0 {
		pid := todo[0]
		todo = todo[1:]
		if seen[pid] || f.keep[pid] {
			continue
		}
		seen[pid] = true
		found = append(found, pid)
		todo = append(todo, children[pid]...)
	}
	slices.Sort(found)
	return found
}

// helper reports whether the process is Nomad's helper for a task. Only its agent
// can stop it, so it gets no signal.
func (f *finder) helper(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // #nosec G703 -- a number
	argv := strings.Split(string(b), "\x00")
	if len(argv) < 2 || filepath.Base(argv[0]) != filepath.Base(f.nomad) {
		return false
	}
	return slices.Contains([]string{"executor", "logmon", "docker_logger"}, argv[1])
}

// How long leftovers and tasks have to end before they are killed.
const (
	graceInt  = 5 * time.Second // SIGINT is what Nomad itself sends first
	graceTerm = 10 * time.Second
	graceKill = 10 * time.Second
)

// kill ends every process of the cluster: tasks are asked to, first the way
// Nomad does, and given time to write what they hold; then all are killed.
func (f *finder) kill(ctx context.Context) error {
	asked := func(sig syscall.Signal, grace time.Duration) error {
		told := map[int]bool{}
		ctx, cancel := context.WithTimeout(ctx, grace)
		defer cancel()
		return wait(ctx, func() (bool, error) {
			left := 0
			for _, pid := range f.all() {
				if f.helper(pid) {
					continue
				}
				left++
				if !told[pid] {
					told[pid] = true
					_ = syscall.Kill(pid, sig)
					_ = syscall.Kill(pid, syscall.SIGCONT)
				}
			}
			return left == 0, nil
		})
	}
	if asked(syscall.SIGINT, graceInt) != nil {
		_ = asked(syscall.SIGTERM, graceTerm)
	}
	var left []int
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceKill)
	defer cancel()
	err := wait(ctx, func() (bool, error) {
		left = f.all()
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(left) == 0, nil
	})
	if err != nil {
		var who []string
		for _, pid := range left {
			who = append(who, Process{pid, command(pid)}.String())
		}
		return fmt.Errorf("these processes of the dev cluster do not end: %s", strings.Join(who, ", "))
	}
	return nil
}

// mounts lists what is mounted below the directory, the innermost first.
func mounts(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if c := strings.Fields(sc.Text()); len(c) > 4 {
			if p := unescape.Replace(c[4]); strings.HasPrefix(p, dir+"/") {
				found = append(found, p)
			}
		}
	}
	slices.Reverse(found) // the later is mounted over or inside the earlier
	return found, sc.Err()
}

// release gives back what the kernel holds for the cluster besides processes:
// mounts in allocations (secrets, chroots) and the clients' interfaces.
func (l *layout) release() error {
	ms, err := mounts(l.dir)
	for _, m := range ms {
		if e := syscall.Unmount(m, syscall.MNT_DETACH); e != nil && !errors.Is(e, syscall.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmounting %s: %w", m, e))
		}
	}
	for _, a := range l.agents() {
		if a.bridge != "" {
			err = errors.Join(err, deleteLink(a.bridge))
		}
	}
	return err
}

// sweep ends and releases all that is left of a cluster whose supervisor is
// gone.
func (l *layout) sweep(ctx context.Context) error {
	return errors.Join(l.find(0).kill(ctx), l.release())
}

// wipe removes everything that belongs to the stopped cluster, and the
// directory itself if nothing else is in it.
func (l *layout) wipe() error {
	// Mounts first: a bind mount in an allocation may show a directory that
	// is not the cluster's.
	ms, err := mounts(l.dir)
	if err != nil {
		return fmt.Errorf("removing the dev cluster: %w", err)
	}
	if len(ms) > 0 {
		return fmt.Errorf("removing the dev cluster: %s is still mounted", ms[0])
	}
	l.removeTraces()
	for _, e := range entries {
		// #nosec G703 -- names of our own, in a directory with our state file
		if err := os.RemoveAll(l.path(e)); err != nil {
			return fmt.Errorf("removing the dev cluster: %w", err)
		}
	}
	_ = os.Remove(l.dir) // #nosec G703 -- stays if it holds other files
	return nil
}

// removeTraces removes what Nomad leaves elsewhere for allocations that it
// did not stop itself: network namespaces and empty control groups.
func (l *layout) removeTraces() {
	for _, id := range l.find(0).allocs {
		ns := filepath.Join("/run/netns", id)
		_ = syscall.Unmount(ns, syscall.MNT_DETACH)
		_ = os.Remove(ns)
		for _, pattern := range []string{"/sys/fs/cgroup/nomad.slice/*/", "/sys/fs/cgroup/*/nomad/", "/sys/fs/cgroup/*/nomad/*/"} {
			groups, _ := filepath.Glob(pattern + id + "*")
			for _, g := range groups {
				_ = os.Remove(g)
			}
		}
	}
}
