package stack

import (
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
)

// rowFiles is a stack whose services are rows of a table in a file of its own.
func rowFiles(more map[string]string) map[string]string {
	files := map[string]string{
		"variables.hcl": `variable "line" { default = "2" }
variable "extra" { default = false }`,
		"table.stack.hcl": `locals {
  rows = {
    api = { lines = ["1", "2"], after = [], env = { A = "a", N = 3, GONE = null } }
    web = { lines = ["1", "2"], after = ["api", "old"], env = {} }
    old = { lines = ["1"], after = [], env = {} }
  }
  here = { for name, row in local.rows : name => row if contains(row.lines, var.line) }
}`,
		"stack.hcl": `dynamic "service" {
  for_each = local.rows
  labels   = [service.key]
  content {
    enabled    = contains(keys(local.here), service.key)
    depends_on = service.value.after
    env        = service.value.env
    locals     = { port = 80 }
  }
}
dynamic "secret" {
  for_each = var.line == "1" ? ["one"] : []
  labels   = [secret.value]
  content {}
}
dynamic "precondition" {
  for_each = { extra = { set = var.extra, lines = ["1"] } }
  content {
    condition     = !precondition.value.set || contains(precondition.value.lines, var.line)
    error_message = "${precondition.key} is in lines ${join(", ", precondition.value.lines)} only."
  }
}`,
		"api.nomad.hcl": `job "api" {}`,
		"web.nomad.hcl": `job "web" {}`,
		"old.nomad.hcl": `variable "needed" {}
job "old" {}`,
	}
	for name, text := range more {
		files[name] = text
	}
	return files
}

func TestLoad_ServicesOfATable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line              string
		services, secrets string
		disabled          string
	}{
		{"1", "api old web", "one", ""},
		{"2", "api web", "", "old"},
	} {
		vars := []string{"line=" + c.line}
		if c.line == "1" {
			vars = append(vars, "needed=x") // of a service that is disabled in line 2
		}
		s, err := Load(t.Context(), Options{Path: "s", Vars: vars, FS: fsOf(rowFiles(nil))})
		if err != nil {
			t.Fatalf("line %s: %v", c.line, err)
		}
		var services, secrets, disabled []string
		for _, svc := range s.Services {
			services = append(services, svc.Name)
			for _, d := range svc.DependsOn {
				if strings.Contains(c.disabled, d) && c.disabled != "" {
					t.Errorf("line %s: %s waits for %s, which is disabled", c.line, svc.Name, d)
				}
			}
		}
		for _, sec := range s.Secrets {
			secrets = append(secrets, sec.Name)
		}
		for _, svc := range s.Disabled {
			disabled = append(disabled, svc.Name)
		}
		for _, g := range [][2]string{{strings.Join(services, " "), c.services}, {strings.Join(secrets, " "), c.secrets}, {strings.Join(disabled, " "), c.disabled}} {
			if g[0] != g[1] {
				t.Errorf("line %s: got %q, want %q", c.line, g[0], g[1])
			}
		}
		if s.Services[0].DependsOn != nil || s.Services[0].Secrets != nil {
			t.Errorf("line %s: an empty list of the table is not nil, and changes the digest of a release: %v %v", c.line, s.Services[0].DependsOn, s.Services[0].Secrets)
		}
		row := string(s.Services[0].Row.Src)
		for _, want := range []string{`A = "a"`, `N = "3"`, "port = 80"} {
			if !strings.Contains(row, want) {
				t.Errorf("the row of api has no %s:\n%s", want, row)
			}
		}
		if strings.Contains(row, "GONE") {
			t.Errorf("the row of api has a variable that is null:\n%s", row)
		}
	}
}

func TestLoad_MistakesInATable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		vars  []string
		want  string
	}{
		"option that the line lacks":   {nil, []string{"extra=true"}, "extra is in lines 1 only."},
		"circle":                       {map[string]string{"b.stack.hcl": "locals {\n  x = local.y\n  y = local.x\n}"}, nil, "refers to itself"},
		"local twice":                  {map[string]string{"b.stack.hcl": "locals { rows = {} }"}, nil, `Local "rows" is defined twice`},
		"unknown local":                {map[string]string{"b.stack.hcl": "locals { x = local.nosuch }"}, nil, "nosuch"},
		"env that is a list":           {map[string]string{"b.stack.hcl": `service "b" { env = ["A"] }`, "b.nomad.hcl": `job "b" {}`}, nil, `env of service "b" is not a map`},
		"env that is no text":          {map[string]string{"b.stack.hcl": `service "b" { env = { A = [1] } }`, "b.nomad.hcl": `job "b" {}`}, nil, `The environment variable A of service "b" is not a text`},
		"env with a name of two words": {map[string]string{"b.stack.hcl": `service "b" { env = { "A B" = "1" } }`, "b.nomad.hcl": `job "b" {}`}, nil, `"A B" cannot be a name in env of service "b"`},
		"function that Nomad lacks":    {map[string]string{"b.stack.hcl": "dynamic \"precondition\" {\n  for_each = [1]\n  content {\n    condition = can(regex(\"a\", \"a\"))\n    error_message = \"x\"\n  }\n}"}, nil, `Unknown function "regex"`},
		"disabled service in a wave":   {map[string]string{"environments/default.hcl": "target \"a\" {\n  services = [\"old\"]\n}"}, nil, `names the disabled service "old"`},
		"broken part":                  {map[string]string{"b.stack.hcl": "locals {"}, nil, "b.stack.hcl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(t.Context(), Options{Path: "s", Vars: c.vars, FS: fsOf(rowFiles(c.files))})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			diags, ok := err.(hcl.Diagnostics) //nolint:errorlint // Load returns them bare
			if !ok || diags[0].Subject == nil || diags[0].Subject.Start.Line == 0 {
				t.Errorf("the mistake has no place: %v", err)
			}
		})
	}
}

// The names of services are known without values.
func TestOutline_HasTheServicesOfATable(t *testing.T) {
	t.Parallel()
	s, err := Outline("s", fsOf(rowFiles(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Services) != 3 {
		t.Errorf("got %d services, want the 3 of the table", len(s.Services))
	}
}

// A version of a table has the default of the variable that selects it.
func TestOutline_HasDefaultsOfVariables(t *testing.T) {
	t.Parallel()
	s, err := Outline("s", fsOf(map[string]string{
		"stack.hcl":     "stack \"s\" {\n  version     = var.none\n  app_version = { a = \"1.0\", b = \"2.0\" }[var.line]\n}\nservice \"x\" {}\n",
		"variables.hcl": "variable \"line\" {\n  default = \"b\"\n}\nvariable \"none\" {\n  type = string\n}\n",
		"x.nomad.hcl":   "job \"x\" {}\n",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.AppVersion != "2.0" || s.Version != "" {
		t.Errorf("got application %q and version %q, want 2.0 and none", s.AppVersion, s.Version)
	}
}
