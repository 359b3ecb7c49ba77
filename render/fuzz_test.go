package render

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/drover-nomad/drover/stack"
)

// A rendered job is a job spec by itself: printed as HCL and parsed as a plain
// job file it is the same job.
func FuzzRender(f *testing.F) {
	read := func(name string) string {
		src, err := os.ReadFile(filepath.Join("..", "jobs", "ocis", name))
		if err != nil {
			f.Fatal(err)
		}
		return string(src)
	}
	f.Add(read(stack.BaseFile), read("gateway.nomad.hcl"), read("environments/dev.hcl"))
	f.Add(`job "*" {
  datacenters = var.dcs
  group "*" {
    count = local.n
    task "*" {
      driver = "docker"
    }
  }
}
locals {
  n = 2
}`, `variable "dcs" { default = ["*"] }
job "a" {
  group "g" {
    dynamic "service" {
      for_each = ["x", "y"]
      content {
        name = service.value
      }
    }
    task "t" {
      config { # a comment
        args = ["$${NOMAD_PORT_http}", <<E
two
E
        ]
      }
    }
  }
}`, `job "a" {
  group "*" {
    count = 3
  }
}`)
	f.Fuzz(func(t *testing.T, base, job, overlay string) {
		if len(base)+len(job)+len(overlay) > 1<<16 {
			return
		}
		load := func(files fstest.MapFS) ([]Job, error) {
			s, err := stack.Load(t.Context(), stack.Options{Path: "fuzz", FS: files, Environment: "e"})
			if err != nil {
				return nil, err
			}
			return Stack(t.Context(), s, Options{})
		}
		environment := &fstest.MapFile{Data: []byte(overlay)}
		first, err := load(fstest.MapFS{"_base.nomad.hcl": {Data: []byte(base)}, "a.nomad.hcl": {Data: []byte(job)}, "environments/e.hcl": environment})
		if err != nil || first[0].HCL == nil {
			return
		}
		again, err := load(fstest.MapFS{"a.nomad.hcl": {Data: first[0].HCL}, "environments/e.hcl": {}})
		if err != nil {
			t.Fatalf("what was rendered is refused: %v\n%s", err, first[0].HCL)
		}
		one, err := json.Marshal(first[0].Job)
		if err != nil {
			t.Fatal(err)
		}
		two, err := json.Marshal(again[0].Job)
		if err != nil || !bytes.Equal(one, two) {
			t.Errorf("rendered twice it differs (%v)\n%s\n%s\n%s", err, first[0].HCL, one, two)
		}
	})
}
