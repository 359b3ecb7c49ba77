package devcluster

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestShapes(t *testing.T) {
	for _, tc := range []struct {
		shape  Shape
		err    string
		agents int
	}{
		{Shape{}, "", 3},
		{Shape{Servers: 1}, "", 3},
		{Shape{Datacenters: []string{"berlin"}}, "", 3},
		{Shape{Clients: 1}, "", 4},
		{Shape{Servers: 3}, "", 1 + 1 + 3 + 1},
		{Shape{Clients: 3, Datacenters: []string{"dc1", "dc2"}}, "", 1 + 3 + 1 + 3},
		{Shape{Datacenters: []string{"dc1", "dc2"}}, "", 1 + 2 + 1 + 2},
		{Shape{Regions: []string{"eu", "us"}, Clients: 2}, "", 2 * (1 + 2 + 1 + 2)},
		{Shape{Servers: -1}, "negative", 0},
		{Shape{Servers: 21}, "21 servers are more", 0},
		{Shape{Clients: 51}, "51 clients are more", 0},
		{Shape{Clients: 1, Datacenters: []string{"dc1", "dc2"}}, "1 clients cannot fill 2 datacenters", 0},
		{Shape{Datacenters: []string{"DC 1"}}, `"DC 1" is no datacenter name`, 0},
		{Shape{Regions: []string{"eu", "eu"}}, `region "eu" is given twice`, 0},
		{Shape{Regions: []string{""}}, `"" is no region name`, 0},
	} {
		err := tc.shape.validate()
		if tc.err != "" {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: error %v, want %q", tc.shape, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tc.shape, err)
			continue
		}
		l := newLayout(Options{Shape: tc.shape, Dir: "/x"}, 3)
		agents := l.agents()
		if len(agents) != tc.agents {
			t.Errorf("%+v: %d agents, want %d", tc.shape, len(agents), tc.agents)
		}
		l.ACME = true
		if agents = l.agents(); len(agents) != tc.agents+1 || l.named("pebble") == nil || l.stages()[0][0].program != Pebble {
			t.Errorf("%+v: %d agents with Pebble, want %d", tc.shape, len(agents), tc.agents+1)
		}
		names, addrs, bridges := map[string]bool{}, map[string]bool{}, map[string]bool{}
		for _, a := range agents {
			if names[a.name] || addrs[a.httpAddr(l.Ports)] || (a.bridge != "" && bridges[a.bridge]) {
				t.Errorf("%+v: %s shares a name or an address", tc.shape, a.name)
			}
			names[a.name], addrs[a.httpAddr(l.Ports)], bridges[a.bridge] = true, true, true
			if len(a.bridge) > 15 {
				t.Errorf("%s is too long for an interface", a.bridge)
			}
		}
		if got := newLayout(Options{Shape: l.Shape}, 0).Shape; !got.equal(tc.shape) {
			t.Errorf("%+v is not equal to itself, normalized", tc.shape)
		}
	}
}

// TestSlots: no two clusters share a port, and none takes one that Linux gives
// to outgoing connections.
func TestSlots(t *testing.T) {
	for slot := range maxSlots {
		p, next := slotPorts(slot, false), slotPorts(slot+1, false)
		if p.DynamicMax-p.DynamicMin < 500 || p.ACMEManage >= p.DynamicMin || p.DynamicMax >= next.NomadHTTP || p.DynamicMax >= 32768 {
			t.Errorf("slot %d has ports %+v", slot, p)
		}
	}
	if p := slotPorts(2, true); p.NomadHTTP != 4646 || p.ConsulHTTP != 8500 || p.ConsulDNS != 8600 {
		t.Errorf("default ports are %+v", p)
	}
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := loadLayout(dir); !errors.Is(err, ErrNoCluster) {
		t.Errorf("no file: %v", err)
	}
	for content, want := range map[string]string{
		`{"layout_version": 99, "id": "a"}`:            "made by a newer drover",
		`{"layout_version": 1`:                         "unexpected end",
		`{"layout_version": 1, "id": ""}`:              "damaged",
		`{"layout_version": 1, "id": "x", "slot": 99}`: "damaged",
	} {
		if err := os.WriteFile(filepath.Join(dir, layoutFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadLayout(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", content, err, want)
		}
	}
	l := newLayout(Options{Dir: dir, Name: "x"}, 5)
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	got, err := loadLayout(dir)
	if err != nil || got.ID != l.ID || got.Ports != l.Ports || got.Slot != 5 {
		t.Errorf("read %+v, %v", got, err)
	}
	want := l.Ports
	l.Ports.ACME, l.Ports.ACMEManage = 0, 0 // as drover wrote it before
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	if got, err = loadLayout(dir); err != nil || got.Ports != want {
		t.Errorf("an older state has the ports %+v, %v", got.Ports, err)
	}
}

func TestOptions(t *testing.T) {
	var invalid *InvalidError
	for _, o := range []Options{{Name: "../x"}, {Name: "A"}, {Shape: Shape{Servers: -1}}} {
		if _, err := o.resolve(); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	real := t.TempDir()
	if runtime.GOOS == "linux" {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(real, link); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{link, filepath.Join(link, "new")} {
			o, err := Options{Dir: dir}.resolve()
			if err != nil || !strings.HasPrefix(o.Dir, real) {
				t.Errorf("%s is %s, %v", dir, o.Dir, err)
			}
		}
	}
}
