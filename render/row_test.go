package render

import (
	"strings"
	"testing"
)

// A row lies over the service's own file, which several rows may share, and the
// environment over both.
func TestStack_RowOfAService(t *testing.T) {
	t.Parallel()
	s := load(t, nil, map[string]string{
		"variables.hcl": `variable "on" { default = false }`,
		"stack.hcl": `service "a" {
  env = { BASE = "row", ROW = "$${NOMAD_ADDR_http}", OWN = "row", OVER = "row" }
  locals = { port = 80 }
}
service "off" { enabled = var.on }
dynamic "service" {
  for_each = { one = "1", two = "2" }
  labels   = [service.key]
  content {
    id     = "shared-${service.key}"
    file   = "_shared.nomad.hcl"
    locals = { text = service.value }
  }
}`,
		"_base.nomad.hcl": `locals { port = 1 }
job "*" {
  group "*" {
    task "*" {
      driver = "raw_exec"
      env { BASE = "base" }
    }
  }
}`,
		"a.nomad.hcl": `locals { port = 2 }
job "a" {
  group "g" {
    task "t" {
      env {
        OWN  = "own"
        PORT = local.port
      }
    }
  }
}`,
		"_shared.nomad.hcl": `locals { text = "none" }
job "shared" {
  group "g" {
    task "t" {
      env { TEXT = local.text }
    }
  }
}`,
		"off.nomad.hcl": `job "job-off" {}`,
		"environments/default.hcl": `job "a" {
  group "*" {
    task "*" {
      env { OVER = "over" }
    }
  }
}
job "job-off" {
  priority = 70
}`,
	})
	jobs, err := Stack(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, j := range jobs {
		ids = append(ids, *j.Job.ID+"="+j.Job.TaskGroups[0].Tasks[0].Env["TEXT"])
	}
	if got, want := strings.Join(ids, " "), "a= shared-one=1 shared-two=2"; got != want {
		t.Fatalf("got the jobs %s, want %s", got, want)
	}
	env := jobs[0].Job.TaskGroups[0].Tasks[0].Env
	for name, want := range map[string]string{"BASE": "row", "ROW": "${NOMAD_ADDR_http}", "OWN": "row", "OVER": "over", "PORT": "80"} {
		if env[name] != want {
			t.Errorf("%s: got %q, want %q", name, env[name], want)
		}
	}
	if _, err := Stack(t.Context(), s, Options{Services: []string{"off"}}); err == nil || !strings.Contains(err.Error(), `Service "off" is disabled`) {
		t.Errorf("rendering a disabled service: %v", err)
	}
}
