package render

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/stack"
)

const droverJob = `job "web" {
  id = "web-${drover.environment}"
  group "g" {
    service {
      name = join("-", [drover.stack, drover.environment])
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = "true"
      }
      template {
        destination = "local/x"
        data        = <<EOT
{{ with nomadVar "nomad/jobs/web-${drover.environment}" }} ${attr.kernel.name} ${local.greeting}
EOT
      }
    }
  }
}
locals {
  greeting = "hello from ${drover.stack}"
}
`

func loadIn(t *testing.T, env string, files map[string]string) (*stack.Stack, error) {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return stack.Load(t.Context(), stack.Options{Path: "shop", FS: m, Environment: env})
}

func TestDroverObject_InSpecs(t *testing.T) {
	s, err := loadIn(t, "prod", map[string]string{
		"stack.hcl":             "stack \"shop\" {}\nservice \"web\" {}\ncheck \"up\" {\n  url = \"http://${drover.stack}.${drover.environment}/${var.host}\"\n}\n",
		"variables.hcl":         "variable \"host\" {}\n",
		"environments/prod.hcl": "variables {\n  host = \"${drover.environment}.example\"\n}\njob \"web\" {\n  group \"g\" {\n    task \"t\" {\n      env {\n        HOST = \"${drover.environment}/${var.host}\"\n      }\n    }\n  }\n}\n",
		"web.nomad.hcl":         droverJob,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Checks[0].URL, "http://shop.prod/prod.example"; got != want {
		t.Errorf("url of the check: got %q, want %q", got, want)
	}
	jobs, err := Stack(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	// The output is a plain job spec: Nomad's own parser returns the same job.
	plain, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: "web", Body: jobs[0].HCL, AllowFS: true, Strict: true})
	if err != nil {
		t.Fatalf("%v in\n%s", err, jobs[0].HCL)
	}
	for _, job := range []*struct{ id, service, env, data string }{
		{*jobs[0].Job.ID, jobs[0].Job.TaskGroups[0].Services[0].Name, jobs[0].Job.TaskGroups[0].Tasks[0].Env["HOST"], *jobs[0].Job.TaskGroups[0].Tasks[0].Templates[0].EmbeddedTmpl},
		{*plain.ID, plain.TaskGroups[0].Services[0].Name, plain.TaskGroups[0].Tasks[0].Env["HOST"], *plain.TaskGroups[0].Tasks[0].Templates[0].EmbeddedTmpl},
	} {
		if job.id != "web-prod" || job.service != "shop-prod" || job.env != "prod/prod.example" ||
			!strings.Contains(job.data, `"nomad/jobs/web-prod" }} ${attr.kernel.name} hello from shop`) {
			t.Errorf("got %+v in\n%s", job, jobs[0].HCL)
		}
	}
	if text := string(jobs[0].HCL); !strings.Contains(text, "drover_environment = \"prod\"") || strings.Contains(text, "drover.environment") {
		t.Errorf("the merged spec is not plain:\n%s", text)
	}
	// Places behind a substitution are those of the layers.
	if at := jobs[0].Source().Find("group g", "service #0"); at.Start.Line != 4 {
		t.Errorf("the service is at line %d, want 4", at.Start.Line)
	}
}

func TestDroverObject_Mistakes(t *testing.T) {
	for name, test := range map[string]struct{ spec, want string }{
		"unknown name":        {`job "web" { name = drover.enviroment }`, `Unknown value drover.enviroment; There are drover.stack and drover.environment. Did you mean drover.environment?`},
		"the whole object":    {`job "web" { name = jsonencode(drover) }`, "Invalid use of drover"},
		"a local of its name": {"job \"web\" { name = drover.stack }\nlocals {\n  drover_stack = 1\n}\n", `Local "drover_stack" is reserved`},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := loadIn(t, "", map[string]string{"web.nomad.hcl": test.spec})
			if err == nil {
				_, err = Stack(t.Context(), s, Options{})
			}
			var diags hcl.Diagnostics
			if !errors.As(err, &diags) || !strings.Contains(diags.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A single job file knows drover too, although Nomad's own rule does not.
func TestDroverObject_InASingleFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.nomad.hcl")
	values := filepath.Join(dir, "values.hcl")
	if err := os.WriteFile(file, []byte("variable \"host\" {}\n"+strings.Replace(droverJob, "raw_exec", "${var.host}", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(values, []byte("host = \"${drover.stack}.example\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := stack.Load(t.Context(), stack.Options{Path: file, ValueFiles: []string{values}})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := Stack(t.Context(), s, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := *jobs[0].Job.ID; got != "web-default" {
		t.Errorf("ID: got %q, want web-default", got)
	}
	if got := jobs[0].Job.TaskGroups[0].Tasks[0].Driver; got != "web.example" {
		t.Errorf("driver: got %q, want web.example", got)
	}
}
