package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// service is what differs between the services of a stack, and from one
// version to the next.
type service struct {
	name, value string
	count       int
	deps        []string
	files       bool // it keeps files
	crash       bool // it ends at once
}

// versions are what a run goes from and to: the second changes some services,
// may add one and drop one.
func versions(rng *rand.Rand) (one, two []service) {
	one = []service{
		{name: "db", value: "1", count: 1, files: true},
		{name: "api", value: "1", count: 1, deps: []string{"db"}},
		{name: "web", value: "1", count: 2, deps: []string{"api"}},
		{name: "jobs", value: "1", count: 1, deps: []string{"db"}},
	}
	two = append(two, one...)
	changed := 0
	for i := range two {
		if rng.IntN(3) > 0 || (i == 2 && changed == 0) {
			two[i].value = "2"
			changed++
		}
	}
	if rng.IntN(3) == 0 {
		two = two[:3] // without jobs
	}
	if rng.IntN(3) == 0 {
		two = append(two, service{name: "mail", value: "2", count: 1, deps: []string{"api"}})
	}
	return one, two
}

// write replaces the stack of the run.
func (r *run) write(services []service) {
	r.t.Helper()
	for _, pattern := range []string{"*.hcl", "environments/*.hcl"} {
		old, _ := filepath.Glob(filepath.Join(r.dir, pattern))
		for _, f := range old {
			if err := os.Remove(f); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	files := map[string]string{"stack.hcl": fmt.Sprintf("stack %q {}\nsecret \"word\" {}\n", r.name)}
	if len(r.site.regions) > 1 {
		env := ""
		for _, region := range r.site.regions {
			env += fmt.Sprintf("target %[1]q {\n  region = %[1]q\n}\nwave %[1]q {\n  targets = [%[1]q]\n  bake    = \"1s\"\n}\n", region)
		}
		files["environments/prod.hcl"] = env
	}
	for _, s := range services {
		deps, _ := json.Marshal(s.deps)
		if s.deps == nil {
			deps = []byte("[]")
		}
		files["stack.hcl"] += fmt.Sprintf("service %q {\n  depends_on = %s\n  secrets    = [\"word\"]\n}\n", s.name, deps)
		files[s.name+".nomad.hcl"] = r.spec(s)
	}
	for name, text := range files {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *run) spec(s service) string {
	tags := "[]"
	if host := r.site.host; host != "" {
		prefix := "/" + r.name
		if s.files {
			prefix += "/file"
		}
		switch {
		case s.name == "web":
			tags = fmt.Sprintf(`["drover.route=%s%s/", "drover.http=serve"]`, host, prefix)
		case s.files:
			tags = fmt.Sprintf(`["drover.route=%s%s/", "drover.strip=/%s", "drover.http=serve"]`, host, prefix, r.name)
		}
	}
	crash := ""
	if s.crash {
		crash = envCrash + " = \"yes\""
	}
	return fmt.Sprintf(`job %q {
  datacenters = ["*"]
  group "g" {
    count = %d
    update {
      max_parallel      = 1
      min_healthy_time  = "300ms"
      healthy_deadline  = "25s"
      progress_deadline = "35s"
      health_check      = "checks"
    }
    restart {
      attempts = 3
      interval = "1m"
      delay    = "500ms"
      mode     = "fail"
    }
    reschedule {
      delay          = "5s"
      delay_function = "constant"
      unlimited      = true
    }
    shutdown_delay = "1500ms"
    ephemeral_disk {
      size = 101
    }
    network {
      port "http" {}
    }
    service {
      name = %[1]q
      port = "http"
      tags = %[3]s
      check {
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = %q
      }
      env {
        VALUE = %q
        %s = "$${NOMAD_ADDR_http}"
        %s = %q
        %s = %q
        %s
      }
      template {
        destination = "secrets/word"
        change_mode = "noop"
        data        = "{{ with nomadVar (printf \"nomad/jobs/%%s\" (env \"NOMAD_JOB_ID\")) }}{{ .word }}{{ end }}"
      }
      resources {
        cpu    = 20
        memory = 64
      }
      logs {
        disabled = true
      }
    }
  }
}
`, r.job(s.name), s.count, tags, r.site.exe, s.value, envBackend, envStack, r.name, envData, r.data, crash)
}

func (r *run) job(service string) string { return r.name + "-" + service }

// wanted is how Nomad shows services: REGION/JOB → VALUE.
func (r *run) wanted(services []service) map[string]string {
	out := map[string]string{}
	for _, region := range r.site.regions {
		for _, s := range services {
			out[region+"/"+r.job(s.name)] = s.value
		}
	}
	return out
}
