package devtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// How many processes may run or wait for a processor, for each processor, when a cluster
// is started, and for how long a test that is the next one waits for it. One package of
// tests keeps a small machine busier than that for many minutes: to wait for its end would
// cost more than to run beside it.
const (
	calmPerCPU = 2.0
	calmWithin = time.Minute
)

// WaitCalm waits until the machine can bear another cluster; Cluster calls it. The tests of
// all packages wait in one line, so that each sees what the cluster before it takes. How
// many of them two processors bear differs by three between machines, and a test that gets
// too small a share ends at a deadline. A machine that is busy with something else only
// delays a test.
func WaitCalm(t testing.TB) {
	t.Helper()
	HoldCalm(t)()
}

// HoldCalm is WaitCalm for a test that needs its share of the machine, because it counts
// the requests that fail while clients send them without a pause. No cluster starts until
// leave is called.
func HoldCalm(t testing.TB) (leave func()) {
	t.Helper()
	leave, err := line(t.Context(), filepath.Join(os.TempDir(), fmt.Sprintf("drover-tests-%d.lock", os.Getuid())))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), calmWithin)
	defer cancel()
	for start := time.Now(); ; {
		mean, err := meanRunnable(ctx)
		if err != nil {
			return leave // not Linux, calmWithin is over, or the test ends
		}
		if mean <= calmPerCPU*float64(runtime.NumCPU()) {
			if d := time.Since(start).Round(time.Second); d > 5*time.Second {
				t.Logf("waited %s for a calm machine", d)
			}
			return leave
		}
	}
}

// line returns when the process is the only one that holds the lock of the file.
func line(ctx context.Context, path string) (leave func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // #nosec G304 -- a path of this package
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil { // #nosec G115 -- a file descriptor
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}

// meanRunnable returns how many processes run or wait for a processor, in the mean of two
// seconds (proc_loadavg(5), the fourth field).
func meanRunnable(ctx context.Context) (float64, error) {
	const samples = 40
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	sum := 0
	for range samples {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		text, err := os.ReadFile("/proc/loadavg")
		if err != nil {
			return 0, err
		}
		var load float64
		var runnable int
		if _, err := fmt.Sscanf(string(text), "%f %f %f %d/", &load, &load, &load, &runnable); err != nil {
			return 0, fmt.Errorf("/proc/loadavg: %w", err)
		}
		sum += runnable - 1 // this process
	}
	return float64(sum) / samples, nil
}
