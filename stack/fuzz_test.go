package stack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/hashicorp/hcl/v2"
)

// A stack is loaded or refused with places in its files; what is loaded has
// its services in order.
func FuzzLoad(f *testing.F) {
	for _, name := range []string{"ocis", "edge", "edge-nginx"} {
		dir := filepath.Join("..", "jobs", name)
		var text [3]string
		for i, file := range []string{ConfigFile, VariablesFile, "environments/dev.hcl"} {
			src, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				f.Fatal(err)
			}
			text[i] = string(src)
		}
		f.Add(text[0], text[1], text[2], "domain=example.org")
	}
	f.Add(`stack "s" {
  version = "1.0.0"
}
service "a" {}
service "b" { depends_on = ["a"] }
secret "k" { type = "random" }
check "c" { url = "https://${var.domain}/" }
precondition {
  condition     = var.n > 1
  error_message = "too few"
}`, `variable "domain" {
  type = string
  validation {
    condition     = can(regex("^[a-z]+$", var.domain))
    error_message = "no"
  }
}
variable "n" { default = 2 }`, `variables {
  n = 3
}`, "domain=x")
	f.Fuzz(func(t *testing.T, config, variables, environment, value string) {
		job := &fstest.MapFile{Data: []byte("job \"a\" {}\n")}
		s, err := Load(t.Context(), Options{Path: "fuzz", Environment: "e", Vars: []string{value}, FS: fstest.MapFS{
			ConfigFile:           {Data: []byte(config)},
			VariablesFile:        {Data: []byte(variables)},
			"environments/e.hcl": {Data: []byte(environment)},
			"a.nomad.hcl":        job,
			"b.nomad.hcl":        job,
		}})
		if err != nil {
			if diags, ok := err.(hcl.Diagnostics); ok { //nolint:errorlint // Load returns them bare
				for _, d := range diags {
					if d.Summary == "" {
						t.Errorf("a mistake without words: %#v", d)
					}
				}
			}
			return
		}
		done := map[string]bool{}
		for _, svc := range s.Services {
			for _, d := range svc.DependsOn {
				if !done[d] {
					t.Errorf("%s comes before %s, which it depends on", svc.Name, d)
				}
			}
			done[svc.Name] = true
		}
	})
}

// A file of values is read or refused in each of its three languages, and
// JSON says the same as YAML, since every JSON text is YAML.
func FuzzValues(f *testing.F) {
	f.Add("domain = \"x\"\nlist = [1, 2]\n")
	f.Add(`{"domain": "x", "n": 1.5, "list": [true, null, {"a": "b"}]}`)
	f.Add("domain: x\nn: 0x10\nm: &a {k: [1, ~]}\no: *a\nt: 2020-01-01\n")
	f.Add("a: &x [*x]\n")
	f.Add("a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\n")
	f.Fuzz(func(t *testing.T, src string) {
		dir := t.TempDir()
		read := func(name string) (map[string]given, hcl.Diagnostics) {
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
			values, diags := (&Stack{}).fileValues(file)
			byName := map[string]given{}
			for _, g := range values {
				byName[g.name] = g
			}
			return byName, diags
		}
		asYAML, yamlDiags := read("v.yaml")
		asHCL, hclDiags := read("v.hcl")
		if len(src) == 0 || src[0] != '{' || !json.Valid([]byte(src)) || hclDiags.HasErrors() || yamlDiags.HasErrors() {
			return
		}
		for name, g := range asHCL {
			if o, ok := asYAML[name]; ok && g.value.IsKnown() && o.value.IsKnown() && !g.value.RawEquals(o.value) {
				t.Errorf("%s is %#v in JSON and %#v in YAML", name, g.value, o.value)
			}
		}
	})
}

// A frozen stack is read or refused; what was read freezes to the same again.
func FuzzThaw(f *testing.F) {
	f.Add([]byte(`{"Stack":{"Name":"s","Services":[{"Name":"a","DependsOn":["b"]}],"Issuers":[{"Name":"i"}]},"Values":{"n":{"value":1,"type":"number"}}}`))
	f.Add([]byte(`{"Stack":{"Services":[null],"Issuers":[null]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Thaw(text)
		if err != nil {
			return
		}
		one, err := Freeze(s)
		if err != nil {
			return // a value that cannot be written
		}
		if s, err = Thaw(one); err != nil {
			t.Fatalf("what was frozen does not thaw: %v\n%s", err, one)
		}
		two, err := Freeze(s)
		if err != nil || string(one) != string(two) {
			t.Errorf("frozen again it differs (%v)\n%s\n%s", err, one, two)
		}
	})
}
