package controller

import (
	"bytes"
	"os"
	"runtime"
	stats "runtime/metrics"
	"strconv"
	"time"
)

// self writes the resources that the process uses, under the names of Prometheus'
// libraries. Values from /proc exist on Linux only.
func (e *exposition) self(started time.Time) {
	one := func(name, help string, value float64) {
		e.family(name, "gauge", help)
		e.sample(name, value)
	}
	one("go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine()))
	// Without garbage, whose amount goes up and down.
	live := []stats.Sample{{Name: "/gc/heap/live:bytes"}}
	stats.Read(live)
	one("go_gc_heap_live_bytes", "Bytes of the heap that the last collection found in use.", float64(live[0].Value.Uint64()))
	one("process_start_time_seconds", "When this process started.", unix(started))
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		one("process_open_fds", "Open file descriptors.", float64(len(open)-1)) // without that of the directory
	}
	// In pages: all, resident.
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := bytes.Fields(statm); len(f) > 1 {
			if pages, err := strconv.Atoi(string(f[1])); err == nil {
				one("process_resident_memory_bytes", "Resident memory.", float64(pages*os.Getpagesize()))
			}
		}
	}
}
