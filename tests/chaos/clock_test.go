package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster"
)

// envClock names a file with the seconds by which the clock of a program is
// off, if it was built with clockFlags: 8 bytes, least significant first.
const envClock = "DROVER_CHAOS_CLOCK"

// clockFlags are what go build needs to make programs whose clock can be set
// while they run. They ask Go's package time, which asks the kernel: neither
// libfaketime nor a time namespace comes between, and the machine's clock is
// everybody's. So time.Now is built anew, with a line more.
func clockFlags(ctx context.Context) ([]string, error) {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env GOROOT: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time")
	source, err := os.ReadFile(filepath.Join(dir, "time.go")) // #nosec G304 -- Go's own
	if err != nil {
		return nil, err
	}
	const line = "sec, nsec, mono := runtimeNow()\n"
	if !strings.Contains(string(source), line) {
		return nil, errors.New("this Go has another time.Now: see clockFlags")
	}
	changed := strings.ReplaceAll(string(source), line, line+"\tsec += jumped()\n")
	const jump = `package time

import (
	"syscall"
	"unsafe"
)

var jump = func() *int64 {
	path, _ := syscall.Getenv("` + envClock + `")
	if path == "" {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	address, _, errno := syscall.Syscall6(syscall.SYS_MMAP, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED, uintptr(fd), 0)
	if errno != 0 {
		return nil
	}
	return (*int64)(unsafe.Pointer(address))
}()

func jumped() int64 {
	if jump == nil {
		return 0
	}
	return *jump
}
`
	sum := sha256.Sum256([]byte(changed + jump))
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	// Its path is a part of what is built with it.
	out := filepath.Join(cache, "drover", "clock-"+hex.EncodeToString(sum[:8]))
	if err := os.MkdirAll(out, 0o755); err != nil { // #nosec G301 -- no secrets
		return nil, err
	}
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": changed, "jump.go": jump} {
		replace[filepath.Join(dir, name)] = filepath.Join(out, name)
		if err := os.WriteFile(filepath.Join(out, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(out, "overlay.json")
	return []string{"-overlay=" + file}, os.WriteFile(file, overlay, 0o600)
}

// newClock is a file for envClock, in a directory that every user may enter.
func newClock(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "clock")
	if err := os.WriteFile(path, make([]byte, 8), 0o644); err != nil { // #nosec G306 -- the controller runs as nobody
		t.Fatal(err)
	}
	return path
}

// setClock puts the clock of those who have the file off by so much.
func setClock(file string, by time.Duration) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0) // #nosec G304 -- the test's own
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0) // #nosec G115 -- two's complement
	return errors.Join(err, f.Close())
}

// jumps has the clock of some processes jump, and back after a while.
func jumps(file func(*run) string, processes func(context.Context, *run) []int) func(context.Context, *run, time.Duration) error {
	return func(ctx context.Context, r *run, hold time.Duration) error {
		by := []time.Duration{-time.Hour, time.Hour, -36 * time.Hour, 36 * time.Hour, 60 * 24 * time.Hour}[r.upToN(5)]
		r.t.Logf("by %s", by)
		for _, pid := range processes(ctx, r) {
			maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
			if err == nil && len(maps) > 0 && !strings.Contains(string(maps), file(r)) { // else it has ended
				return fmt.Errorf("process %d does not look at the clock", pid)
			}
		}
		if err := setClock(file(r), by); err != nil {
			return err
		}
		err := wait(ctx, hold)
		return errors.Join(err, setClock(file(r), 0))
	}
}

// ofNode are Nomad, Consul and the controller.
func ofNode(ctx context.Context, r *run) []int {
	pids := r.site.processes("drover-controller")
	for _, a := range r.site.dev.Agents(ctx) {
		if a.PID != 0 && a.Program != devcluster.Pebble {
			pids = append(pids, a.PID)
		}
	}
	return pids
}

func ofDeploy(_ context.Context, r *run) []int { return []int{r.deploy.cmd.Process.Pid} }
