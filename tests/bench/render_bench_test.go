package bench

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

const manyServices = 1000

// manyJobs writes a stack of many services over one base, each as large as
// one of oCIS.
func manyJobs(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	write("variables.hcl", `
variable "datacenters" {
  type    = list(string)
  default = ["*"]
}
variable "image" {
  type    = string
  default = "example/app:1"
}
variable "domain" {
  type        = string
  description = "Where users find it."
  default     = "example.org"
  validation {
    condition     = var.domain != ""
    error_message = "The domain must not be empty."
  }
}
variable "unused" { default = 1 }
`)
	write("_base.nomad.hcl", `
locals {
  url = "https://${var.domain}"
}
# Under every job.
job "*" {
  datacenters = var.datacenters
  group "*" {
    update {
      max_parallel      = 1
      auto_revert       = true
      min_healthy_time  = "5s"
      healthy_deadline  = "1m"
      progress_deadline = "3m"
    }
    restart {
      attempts = 3
      interval = "1m"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    shutdown_delay = "2s"
    task "*" {
      driver      = "docker"
      user        = "1000"
      kill_signal = "SIGINT"
      config {
        image        = var.image
        network_mode = "host"
      }
      env {
        URL       = local.url
        LOG_LEVEL = "warn"
        HOME      = "$${NOMAD_TASK_DIR}"
      }
      resources {
        cpu    = 50
        memory = 128
      }
      logs {
        max_files     = 3
        max_file_size = 10
      }
    }
  }
}
`)
	for i := range manyServices {
		write(fmt.Sprintf("s%04d.nomad.hcl", i), fmt.Sprintf(`# Service %[1]d of many.
job "many-%04[1]d" {
  group "web" {
    count = 2
    network {
      port "http" {}
      port "debug" {}
    }
    service {
      name = "many-%04[1]d"
      port = "http"
      check {
        type     = "http"
        path     = "/ready"
        interval = "2s"
        timeout  = "1s"
      }
    }
    task "web" {
      config {
        args = ["serve", "--listen", "$${NOMAD_ADDR_http}", "--number", "%[1]d"]
      }
      env {
        ADDRESS = "$${NOMAD_ADDR_http}"
        DEBUG   = "$${NOMAD_ADDR_debug}"
        SELF    = "${local.url}/%[1]d"
        PEERS   = "many-%04[1]d.service.consul"
      }
      template {
        destination = "secrets/app.env"
        env         = true
        data        = <<EOT
{{ with nomadVar "nomad/jobs/many-%04[1]d" }}
SECRET={{ .secret }}
{{ end }}
EOT
      }
      resources {
        memory = 256
      }
    }
  }
}
`, i))
	}
	return dir
}

// BenchmarkRender renders the stack, and calls jobspec2 on what it merged it
// to, in turn.
func BenchmarkRender(b *testing.B) {
	dir := manyJobs(b)
	merged := b.TempDir()
	s, err := stack.Load(b.Context(), stack.Options{Path: dir})
	if err != nil {
		b.Fatal(err)
	}
	err = render.Each(b.Context(), s, render.Options{}, func(j render.Job) error {
		return os.WriteFile(filepath.Join(merged, j.Service+".nomad.hcl"), j.HCL, 0o600)
	})
	if err != nil {
		b.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(merged, "*.nomad.hcl"))
	if err != nil || len(files) != manyServices {
		b.Fatalf("%d merged files: %v", len(files), err)
	}
	// The best of the runs: what disturbs a run only makes it longer.
	ours, floor := time.Hour, time.Hour
	for b.Loop() {
		runtime.GC()
		began := time.Now()
		for _, f := range files {
			body, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: f, Body: body, AllowFS: true, Strict: true}); err != nil {
				b.Fatal(err)
			}
		}
		floor = min(floor, time.Since(began))

		runtime.GC()
		began = time.Now()
		s, err := stack.Load(b.Context(), stack.Options{Path: dir})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		if err := render.Each(b.Context(), s, render.Options{}, func(render.Job) error { n++; return nil }); err != nil || n != manyServices {
			b.Fatalf("%d jobs: %v", n, err)
		}
		ours = min(ours, time.Since(began))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours.Seconds(), "drover-s")
	b.ReportMetric(floor.Seconds(), "jobspec2-s")
	b.ReportMetric(ours.Seconds()/floor.Seconds(), "ratio")
}

// A thousand services are rendered in less than 150 MB.
func TestRenderOfManyServicesFitsInMemory(t *testing.T) {
	dir := manyJobs(t)
	binary := filepath.Join(t.TempDir(), "drover")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../cmd/drover").CombinedOutput(); err != nil {
		t.Fatalf("building drover: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), binary, "render", dir)
	cmd.Stdout, cmd.Stderr = io.Discard, os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Skip("the system does not tell how much memory a process took")
	}
	peak := usage.Maxrss / 1024
	if runtime.GOOS == "darwin" {
		peak /= 1024 // there it is bytes
	}
	t.Logf("%d services in %s, %d MB at most", manyServices, time.Since(began).Round(time.Millisecond), peak)
	if peak >= 150 {
		t.Errorf("rendering %d services took %d MB", manyServices, peak)
	}
}
