package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// largeStack writes a stack of n services over one base, each as large as
// one of oCIS.
func largeStack(dir string, n int) error {
	write, done := writer(dir)
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
	for i := range n {
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
	return done()
}

// cheapStack writes a stack of n services that need nothing of the machine,
// in five layers: each service depends on up to two of the layer before. They
// register in Consul if it is there.
func cheapStack(dir, name string, n int, consul bool) error {
	const layers = 5
	write, done := writer(dir)
	var config strings.Builder
	fmt.Fprintf(&config, "stack %q {}\n", name)
	per := (n + layers - 1) / layers
	for i := range n {
		fmt.Fprintf(&config, "service \"%s-%04d\" {\n", name, i)
		if i >= per {
			below := i - per
			other := below/per*per + (below+1)%per
			fmt.Fprintf(&config, "  depends_on = [\"%s-%04d\"", name, below)
			if other != below {
				fmt.Fprintf(&config, ", \"%s-%04d\"", name, other)
			}
			config.WriteString("]\n")
		}
		config.WriteString("}\n")
		service := ""
		if consul {
			service = fmt.Sprintf("    service {\n      name = \"%s-%04d\"\n    }\n", name, i)
		}
		write(fmt.Sprintf("%s-%04d.nomad.hcl", name, i), fmt.Sprintf(`job "%[1]s-%04[2]d" {
  update {
    min_healthy_time = "1s"
    health_check     = "task_states"
  }
  group "g" {
    shutdown_delay = "0s"
%[3]s    task "t" {
      driver = "mock_driver"
      config {
        run_for = "24h"
      }
      resources {
        cpu    = 1
        memory = 10
      }
    }
  }
}
`, name, i, service))
	}
	write("stack.hcl", config.String())
	return done()
}

// writer writes files into dir; the second function tells what went wrong.
func writer(dir string) (func(name, text string), func() error) {
	err := os.MkdirAll(dir, 0o700)
	return func(name, text string) {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}, func() error { return err }
}
