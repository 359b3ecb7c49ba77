package render

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/hashicorp/nomad/jobspec2"
)

// TestEvaluate_Memory: a job does not keep the syntax tree that it was made of. It is not
// parallel, because it measures the heap.
func TestEvaluate_Memory(t *testing.T) {
	var text strings.Builder
	text.WriteString("locals {\n  unused = [\n")
	for i := range 50_000 {
		fmt.Fprintf(&text, "    \"text %d\",\n", i)
	}
	text.WriteString("  ]\n}\njob \"a\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"docker\"\n      config {\n        image = \"a:1\"\n      }\n    }\n  }\n}\n")
	body := []byte(text.String())
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what finalizers kept
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	job, err := evaluate(&jobspec2.ParseConfig{Path: "a.nomad.hcl", Body: body, Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	if kept := heap() - before; kept > 2<<20 {
		t.Errorf("the job keeps %d KiB, want at most 2048: its syntax tree has more than 10 MiB", kept>>10)
	}
	runtime.KeepAlive(job)
	runtime.KeepAlive(body)
}
