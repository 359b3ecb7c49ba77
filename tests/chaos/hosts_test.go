package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// hosts makes of the agents of a cluster, which are all on this machine, hosts
// that the network can part: each has a cgroup, by which a packet filter tells
// who sends.
type hosts struct {
	group string // the directory with a cgroup for each agent
	path  string // the same, from the root of the hierarchy
	chain string // of the packet filter, in the table filter
}

// newHosts needs root, iptables and the unified hierarchy of cgroups.
func newHosts(t *testing.T) *hosts {
	t.Helper()
	root, err := cgroup2()
	if err != nil {
		t.Fatal(err)
	}
	sweep(t, root)
	h := &hosts{}
	if h.group, err = os.MkdirTemp(root, fmt.Sprintf("%s%d-", chains, os.Getpid())); err != nil {
		t.Fatalf("a cgroup for the agents: %v", err)
	}
	h.chain = filepath.Base(h.group)
	h.path = h.chain
	t.Cleanup(func() { h.remove(t) })
	for _, args := range [][]string{{"-N", h.chain}, {"-I", "OUTPUT", "-o", "lo", "-j", h.chain}} {
		if err := iptables(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// chains and cgroups of this test begin with this and a process ID.
const chains = "chaos-"

// cgroup2 is where the unified hierarchy is mounted.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted: agents that are hosts need one")
}

// sweep removes what tests left that were killed.
func sweep(t *testing.T, root string) {
	t.Helper()
	old, _ := filepath.Glob(filepath.Join(root, chains+"*"))
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), chains), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			h := hosts{group: dir, chain: filepath.Base(dir)}
			h.remove(t)
		}
	}
}

func (h *hosts) remove(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	_ = iptables(ctx, "-D", "OUTPUT", "-o", "lo", "-j", h.chain)
	_ = iptables(ctx, "-F", h.chain)
	if err := iptables(ctx, "-X", h.chain); err != nil {
		t.Error(err)
	}
	groups, _ := filepath.Glob(filepath.Join(h.group, "*/cgroup.procs"))
	for _, file := range append(groups, filepath.Join(h.group, "cgroup.procs")) {
		dir := filepath.Dir(file)
		for deadline := time.Now().Add(10 * time.Second); ; { // processes that have ended are in it for a moment
			err := os.Remove(dir)
			if err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("a cgroup stays: %v", err)
				break
			}
			_ = wait(ctx, 50*time.Millisecond)
		}
	}
}

func iptables(ctx context.Context, args ...string) error {
	_, err := asked(ctx, args...)
	return err
}

// asked is what iptables answers.
func asked(ctx context.Context, args ...string) (string, error) {
	name := "iptables"
	if _, err := exec.LookPath(name); err != nil {
		name = "/usr/sbin/iptables"
	}
	out, err := exec.CommandContext(ctx, name, append([]string{"-w"}, args...)...).CombinedOutput() // #nosec G204 -- the test's own
	if err != nil {
		return "", fmt.Errorf("iptables %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// dropped is how many packets did not pass.
func (h *hosts) dropped(ctx context.Context) int {
	text, _ := asked(ctx, "-nvxL", h.chain)
	total := 0
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "DROP" {
			n, _ := strconv.Atoi(f[0])
			total += n
		}
	}
	return total
}

// wrap is a script that runs program as agent, in dir: with environment
// variables, and in the agent's cgroup where h is not nil.
func wrap(t *testing.T, h *hosts, dir, program string, env ...string) string {
	t.Helper()
	text := "#!/bin/sh\nset -e\n"
	if h != nil {
		// The last argument is the configuration, named after the agent.
		text += "for file; do :; done\nfile=${file##*/}\n" +
			"group=" + h.group + "/${file%.hcl}\nmkdir -p \"$group\"\necho $$ >\"$group/cgroup.procs\"\n"
	}
	for _, e := range env {
		text += "export " + e + "\n"
	}
	path := filepath.Join(dir, filepath.Base(program))
	devtest.Script(t, path, text+"exec "+program+" \"$@\"\n")
	return path
}

// cut has nothing pass between the agents of far and anybody else, or between
// them and the other agents alone: then drover reaches them. It returns what
// mends the network.
func (s *site) cut(ctx context.Context, fromAll bool, far ...string) (mend func() error, err error) {
	var near, there []string // addresses
	for _, a := range s.dev.Agents(ctx) {
		u, err := url.Parse(a.Addr)
		if err != nil {
			return nil, err
		}
		if slices.Contains(far, a.Name) {
			there = append(there, u.Hostname())
		} else {
			near = append(near, u.Hostname())
		}
	}
	near = slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(near))), func(a string) bool { return slices.Contains(there, a) })
	there = slices.Compact(slices.Sorted(slices.Values(there)))
	h := s.hosts
	rule := func(args ...string) {
		if err == nil {
			err = iptables(ctx, append([]string{"-A", h.chain}, args...)...)
		}
	}
	who := func(agent string) []string { return []string{"-m", "cgroup", "--path", h.path + "/" + agent} }
	for _, agent := range far {
		for _, address := range there { // they have each other
			rule(append(who(agent), "-d", address, "-j", "RETURN")...)
		}
		for _, address := range near {
			rule(append(who(agent), "-d", address, "-j", "DROP")...)
		}
	}
	for _, address := range there {
		if fromAll {
			rule("-d", address, "-j", "DROP")
		} else {
			rule("-m", "cgroup", "--path", h.path, "-d", address, "-j", "DROP")
		}
	}
	mend = func() error { return iptables(context.WithoutCancel(ctx), "-F", h.chain) }
	if err != nil {
		return nil, errors.Join(err, mend())
	}
	return mend, nil
}

// parted cuts agents off until a time is over, or something has been noticed.
func parted(ctx context.Context, r *run, fromAll bool, far []string, long func() error) error {
	mend, err := r.site.cut(ctx, fromAll, far...)
	if err != nil {
		return err
	}
	err = r.until(ctx, 15*time.Second, "a packet was dropped", func() bool { return r.site.hosts.dropped(ctx) > 0 })
	if err == nil {
		err = long()
	}
	r.t.Logf("%s: %d packets did not pass", strings.Join(far, ", "), r.site.hosts.dropped(ctx))
	return errors.Join(err, mend())
}

// node are the agents of the client with this number.
func node(n int) []string {
	return []string{fmt.Sprintf("nomad-client-%d", n), fmt.Sprintf("consul-client-%d", n)}
}

// ofRegion are the agents of one region.
func (s *site) ofRegion(ctx context.Context, region string) []string {
	var out []string
	for _, a := range s.dev.Agents(ctx) {
		if a.Region == region {
			out = append(out, a.Name)
		}
	}
	return out
}
