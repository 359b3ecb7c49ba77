package compose_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/compose"
)

// BenchmarkImport compares, in turns, the import of 60 services, with rendering and lint,
// with what Compose's own library needs to load them. beyond-ms is the difference;
// cpu-ms is that of the time of the processors, which other programs disturb less.
func BenchmarkImport(b *testing.B) {
	var text strings.Builder
	text.WriteString("name: shop\nservices:\n")
	for i := range 60 {
		fmt.Fprintf(&text, "  s%d:\n    image: example.org/s%d:${TAG:-1}\n    ports: ['80']\n    environment: {NEXT: 'http://s%d', PASSWORD: 'x%dy'}\n    volumes: ['d%d:/data']\n    restart: always\n", i, i, (i+1)%60, i, i)
	}
	text.WriteString("volumes:\n")
	for i := range 60 {
		fmt.Fprintf(&text, "  d%d: {}\n", i)
	}
	dir := b.TempDir()
	load := func() {
		_, err := loader.LoadWithContext(b.Context(), types.ConfigDetails{WorkingDir: dir, ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(text.String())}}, Environment: types.Mapping{}})
		if err != nil {
			b.Fatal(err)
		}
	}
	run := func() {
		res, err := importer.Run(b.Context(), "compose", compose.Read, importer.Source{Inputs: []importer.Input{{Name: dir + "/compose.yaml", Text: []byte(text.String())}}})
		if err != nil || res.Refused() {
			b.Fatalf("got %v and %v", err, res)
		}
	}
	run() // once for what is made at the first call
	var loads, runs spent
	for b.Loop() {
		loads.add(b, load)
		runs.add(b, run)
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(b.N) }
	b.ReportMetric(per(loads.time), "compose-ms/op")
	b.ReportMetric(per(runs.time-loads.time), "beyond-ms/op")
	b.ReportMetric(per(runs.cpu-loads.cpu), "beyond-cpu-ms/op")
}

// spent is the time of a program, and that of the processors.
type spent struct{ time, cpu time.Duration }

func (s *spent) add(b *testing.B, do func()) {
	start, cpu := time.Now(), processors(b)
	do()
	s.time += time.Since(start)
	s.cpu += processors(b) - cpu
}

// processors is the time that the processors have spent for this process.
func processors(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
