package devtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster"
)

// Usage is what the processes of a job's tasks on a cluster use.
type Usage struct {
	Processes int
	// Seconds of a processor, of these processes and of their children that ended.
	Seconds float64
	// KB of memory. Memory that processes share counts once.
	KB int
}

// UsageOf returns the usage of the processes of a job (proc(5)).
func UsageOf(t testing.TB, c *devcluster.Cluster, job string) Usage {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	parents, ours := map[string]string{}, map[string]bool{}
	ticks := map[string]int{}
	for _, dir := range dirs {
		pid := filepath.Base(dir)
		stat, _ := os.ReadFile(filepath.Join(dir, "stat")) // a process may have ended
		_, rest, ok := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 15 {
			continue
		}
		parents[pid] = f[1]
		for _, n := range f[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.Atoi(n)
			ticks[pid] += n
		}
		// A program may overwrite its environment, as nginx does; the script that
		// started it does not.
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		ours[pid] = bytes.Contains(env, []byte("NOMAD_JOB_ID="+job+"\x00")) && bytes.Contains(env, []byte(c.Dir()))
	}
	var u Usage
	for pid := range parents {
		at := pid
		for !ours[at] && parents[at] != "" {
			at = parents[at]
		}
		if !ours[at] {
			continue
		}
		u.Processes++
		u.Seconds += float64(ticks[pid]) / 100
		text, _ := os.ReadFile(filepath.Join("/proc", pid, "smaps_rollup"))
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				n, _ := strconv.Atoi(f[1])
				u.KB += n
			}
		}
	}
	return u
}
