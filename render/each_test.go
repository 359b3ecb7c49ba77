package render_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"weak"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// Each keeps no job once the caller has let go of it: a large stack is rendered in the
// memory of a few services.
func TestEach_KeepsNoJob(t *testing.T) {
	t.Parallel()
	const services = 30
	dir := t.TempDir()
	for i := range services {
		text := fmt.Sprintf("job \"s%02d\" {\n  group \"g\" {\n    task \"t\" {\n      driver = \"docker\"\n    }\n  }\n}\n", i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("s%02d.nomad.hcl", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	var seen []weak.Pointer[api.Job]
	kept := 0
	err = render.Each(t.Context(), s, render.Options{}, func(j render.Job) error {
		seen = append(seen, weak.Make(j.Job))
		if len(seen) < services {
			return nil
		}
		runtime.GC()
		for _, p := range seen {
			if p.Value() != nil {
				kept++
			}
		}
		return nil
	})
	if err != nil || len(seen) != services || kept > services/2 {
		t.Errorf("at the last job, %d of %d are kept, %v; want a few", kept, services, err)
	}
}
