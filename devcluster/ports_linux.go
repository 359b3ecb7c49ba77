package devcluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// slotOwner is the file that holds a slot.
type slotOwner struct {
	Dir string `json:"dir"`
	ID  string `json:"id"`
}

// create makes the state of a new cluster: it takes the first slot that no
// other cluster has and whose ports are free. The slot is the cluster's until
// its state file is gone.
func create(ctx context.Context, opts Options) (*layout, error) {
	root, err := stateRoot()
	if err != nil {
		return nil, err
	}
	slots := filepath.Join(root, ".slots")
	if err := os.MkdirAll(slots, 0o755); err != nil { // #nosec G301 -- tasks run as other users and must reach their files
		return nil, fmt.Errorf("creating the dev cluster: %w", err)
	}
	lock, err := lockFile(ctx, filepath.Join(slots, "lock"), nil)
	if err != nil {
		return nil, fmt.Errorf("creating the dev cluster: %w", err)
	}
	defer func() { _ = lock.Close() }()
	var busy error
	for slot := range maxSlots {
		file := filepath.Join(slots, strconv.Itoa(slot))
		if slotTaken(file, opts.Dir) {
			continue
		}
		l := newLayout(opts, slot)
		if err := l.portsFree(ctx, l.agents()); err != nil {
			if opts.DefaultPorts {
				return nil, err
			}
			busy = err
			continue
		}
		b, err := json.Marshal(slotOwner{Dir: opts.Dir, ID: l.ID})
		if err == nil {
			err = writeFile(file, b, 0o644)
		}
		if err != nil {
			return nil, fmt.Errorf("creating the dev cluster: %w", err)
		}
		return l, l.save()
	}
	if busy != nil {
		return nil, fmt.Errorf("no ports for another dev cluster: %w", busy)
	}
	return nil, fmt.Errorf("there are %d dev clusters already: remove one with drover dev down --wipe (%s lists them)", maxSlots, slots)
}

// slotTaken reports whether the cluster that took the slot still exists. One in
// dir does not count, because the caller creates a new one there.
func slotTaken(file, dir string) bool {
	b, err := os.ReadFile(file)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	var o slotOwner
	if json.Unmarshal(b, &o) != nil || o.Dir == dir {
		return false
	}
	l, err := loadLayout(o.Dir)
	switch {
	case errors.Is(err, ErrNoCluster):
		return false
	case err != nil:
		return true // unreadable: assume that it exists
	}
	return l.ID == o.ID
}

// portsFree fails with the first port of the agents that something listens on.
func (l *layout) portsFree(ctx context.Context, agents []*agentSpec) error {
	type endpoint struct {
		addr string
		port int
		udp  bool
	}
	var all []endpoint
	for _, a := range agents {
		tcp, udp := []int{a.httpPort(l.Ports)}, []int(nil)
		switch {
		case a.program == Consul:
			tcp = []int{l.Ports.ConsulHTTP, l.Ports.ConsulDNS, l.Ports.ConsulSerfLAN}
			udp = []int{l.Ports.ConsulDNS, l.Ports.ConsulSerfLAN}
			if a.server {
				tcp = append(tcp, l.Ports.ConsulServer, l.Ports.ConsulSerfWAN)
				udp = append(udp, l.Ports.ConsulSerfWAN)
			}
		case a.program == Pebble:
			tcp = append(tcp, l.Ports.ACMEManage)
		case a.program == PowerDNS:
			tcp, udp = append(tcp, l.Ports.DNS), append(udp, l.Ports.DNS)
		case a.server:
			tcp = append(tcp, l.Ports.NomadRPC, l.Ports.NomadSerf)
			udp = append(udp, l.Ports.NomadSerf)
		}
		for _, p := range tcp {
			all = append(all, endpoint{a.addr, p, false})
		}
		for _, p := range udp {
			all = append(all, endpoint{a.addr, p, true})
		}
	}
	var lc net.ListenConfig
	for _, e := range all {
		addr := net.JoinHostPort(e.addr, strconv.Itoa(e.port))
		var (
			c   interface{ Close() error }
			err error
		)
		proto := "tcp"
		if e.udp {
			proto = "udp"
			c, err = lc.ListenPacket(ctx, "udp4", addr)
		} else {
			c, err = lc.Listen(ctx, "tcp4", addr)
		}
		if err == nil {
			_ = c.Close()
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		by := "by another process"
		if p, ok := listener(e.port, e.udp); ok {
			by = "by process " + p.String()
		}
		return fmt.Errorf("port %d (%s) on %s is taken %s: end it, or choose other ports with a new cluster (drover dev up --name …)", e.port, proto, e.addr, by)
	}
	return nil
}

// listener finds the process that has a socket bound to the port. Processes
// of other users can be looked at by root only.
func listener(port int, udp bool) (Process, bool) {
	files, listening := []string{"/proc/net/tcp", "/proc/net/tcp6"}, "0A"
	if udp {
		files, listening = []string{"/proc/net/udp", "/proc/net/udp6"}, "07"
	}
	inodes := map[string]bool{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		for sc.Scan() {
			c := strings.Fields(sc.Text())
			if len(c) > 9 && c[3] == listening && strings.HasSuffix(c[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+c[9]+"]"] = true
			}
		}
		_ = f.Close()
	}
	if len(inodes) == 0 {
		return Process{}, false
	}
	for _, pid := range pids() {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && inodes[to] {
				return Process{PID: pid, Command: command(pid)}, true
			}
		}
	}
	return Process{}, false
}
