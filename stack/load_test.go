package stack

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hashicorp/hcl/v2"
)

func fsOf(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func TestStackFileIsReadWhole(t *testing.T) {
	s, err := Load(t.Context(), Options{Path: "shop", FS: fsOf(map[string]string{
		"variables.hcl": `variable "domain" { default = "example.org" }`,
		"stack.hcl": `
stack "shop" {
  version       = "1.2.3"
  app_version   = "4"
  upgrade_from  = ["3.*"]
  description   = "sells"
  requires_jobs = ["mesh"]
}
service "web" {
  depends_on = ["api", "db", "api"]
  secrets    = ["jwt", "tls_ca"]
}
service "api" { depends_on = ["db"] }
service "db" { file = "sub/database.hcl" }
secret "jwt" {
  length = 64
  import = ["a.b"]
}
secret "tls" {
  type         = "certificate"
  dns_names    = [var.domain]
  ip_addresses = ["127.0.0.1"]
}
secret "id" { type = "uuid" }
volume "data" { parameters = { uid = "7" } }
check "home" {
  url             = "https://${var.domain}/"
  headers         = { Depth = "0" }
  status          = [200, 207]
  contains        = "hi"
  timeout         = "3s"
  tls_skip_verify = true
  basic_auth {
    username = "u"
    password = "p"
  }
}
certificate "public" {
  names   = [var.domain, "192.0.2.1"]
  issuers = ["ours", "letsencrypt"]
  window  = "23:00-01:30"
}
issuer "ours" {
  directory_url = "https://ca.example.org/dir"
  ca_file       = "ca.pem"
  eab {
    key_id  = "k"
    mac_key = "m"
  }
}
`,
		"ca.pem":           `PEM`,
		"web.nomad.hcl":    `job "web" {}`,
		"api.nomad.hcl":    `job "api" {}`,
		"sub/database.hcl": `job "db" {}`,
		"_note.nomad.hcl":  `not read`,
	})})
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "shop" || s.Version != "1.2.3" || s.AppVersion != "4" || !slices.Equal(s.UpgradeFrom, []string{"3.*"}) || s.Description != "sells" || !slices.Equal(s.RequiresJobs, []string{"mesh"}) {
		t.Errorf("stack: %+v", s)
	}
	if c, i := s.Certificates[0], s.Issuers[0]; len(c.Names) != 2 || !slices.Equal(c.Issuers, []string{"ours", "letsencrypt"}) ||
		c.WindowFrom != 23*time.Hour || c.WindowFor != 150*time.Minute || i.CA != "PEM" || i.EABMACKey != "m" {
		t.Errorf("certificate %+v of %+v", c, i)
	}
	var order []string
	for _, svc := range s.Services {
		order = append(order, svc.Name)
	}
	if !slices.Equal(order, []string{"db", "api", "web"}) {
		t.Errorf("order: %v", order)
	}
	if j := s.Secrets[0]; j.Type != SecretRandom || j.Length != 64 || !slices.Equal(j.ImportPaths, []string{"a.b"}) {
		t.Errorf("secret: %+v", j)
	}
	if c := s.Secrets[1]; !slices.Equal(c.DNSNames, []string{"example.org"}) || !slices.Equal(c.Items(), []string{"tls_ca", "tls_cert", "tls_key"}) {
		t.Errorf("certificate: %+v", c)
	}
	if v := s.Volumes[0]; v.Parameters["uid"] != "7" {
		t.Errorf("volume: %+v", v)
	}
	if c := s.Checks[0]; c.URL != "https://example.org/" || c.Username != "u" || c.Timeout != 3*time.Second || !c.TLSSkipVerify || c.Headers["Depth"] != "0" {
		t.Errorf("check: %+v", c)
	}
}

// A mistake is one diagnostic at its place.
func TestMistakesInStackFiles(t *testing.T) {
	job := map[string]string{"a.nomad.hcl": `job "a" {}`, "b.nomad.hcl": `job "b" {}`}
	for name, c := range map[string]struct {
		file, text, want string
	}{
		"unknown type of secret":           {"stack.hcl", "secret \"x\" {\n  type = \"magic\"\n}", `s/stack.hcl:2,10-17: Unknown type of secret "magic"; Write one of random, uuid, given, certificate.`},
		"short secret":                     {"stack.hcl", `secret "x" { length = 3 }`, `s/stack.hcl:1,23-24: Invalid length of a secret`},
		"items collide":                    {"stack.hcl", "secret \"x\" { type = \"certificate\" }\nsecret \"x_ca\" {}", `s/stack.hcl:2,1-14: Secrets "x" and "x_ca" both have the item "x_ca"`},
		"upgrade_from is no pattern":       {"stack.hcl", "stack \"s\" {\n  app_version = \"1\"\n  upgrade_from = [\"1.[\"]\n}", `Invalid pattern "1.[" of upgrade_from`},
		"upgrade_from without app_version": {"stack.hcl", "stack \"s\" {\n  upgrade_from = [\"1.*\"]\n}", `upgrade_from without app_version`},
		"name is a path":                   {"stack.hcl", `service "../a" { file = "a.nomad.hcl" }`, `s/stack.hcl:1,9-15: Invalid name "../a" of a service`},
		"file outside":                     {"stack.hcl", `service "a" { file = "../a.nomad.hcl" }`, `names a file outside the stack`},
		"file of two":                      {"stack.hcl", "service \"a\" {}\nservice \"b\" {}\nservice \"c\" { file = \"a.nomad.hcl\" }", `s/stack.hcl:3,1-12: a.nomad.hcl is the file of two services`},
		"check without url":                {"stack.hcl", `check "x" {}`, `s/stack.hcl:1,11-11: Missing required argument; The argument "url" is required`},
		"bad timeout":                      {"stack.hcl", "check \"x\" {\n  url = \"x\"\n  timeout = \"soon\"\n}", `s/stack.hcl:3,13-19: Invalid timeout "soon"`},
		"wrong type in block":              {"stack.hcl", `stack "x" { version = ["1"] }`, `s/stack.hcl:1,23-24: Unsuitable value type`},
		"unknown argument":                 {"stack.hcl", "service \"a\" { depend_on = [] }\nservice \"b\" {}", `An argument named "depend_on" is not expected here. Did you mean "depends_on"?`},
		"self dependency":                  {"stack.hcl", "service \"a\" { depends_on = [\"a\"] }\nservice \"b\" {}", `a → a`},
		"unknown variable":                 {"stack.hcl", `stack "x" { version = var.nope }`, `s/stack.hcl:1,26-31: Unsupported attribute`},
		"bad default":                      {"variables.hcl", "variable \"x\" {\n  type = number\n  default = \"many\"\n}", `s/variables.hcl:3,13-19: Invalid default value for variable`},
		"duplicate variable":               {"variables.hcl", "variable \"x\" {}\nvariable \"x\" {}", `s/variables.hcl:2,1-13: Duplicate variable; "x" is already declared at s/variables.hcl:1:1.`},
		"bad type":                         {"variables.hcl", `variable "x" { type = nonsense }`, `s/variables.hcl:1,23-31: Invalid type specification`},
		"syntax":                           {"_base.nomad.hcl", "job \"*\" {\n  type = \n}", `s/_base.nomad.hcl:2,10-3,1: Invalid expression`},
		"set twice":                        {"environments/default.hcl", "variables {\n  x = 1\n}\nvariables {\n  x = 2\n}", `s/environments/default.hcl:5,3-8: Variable "x" is set twice`},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{c.file: c.text}
			for n, text := range job {
				files[n] = text
			}
			_, err := Load(t.Context(), Options{Path: "s", FS: fsOf(files)})
			var diags hcl.Diagnostics
			if !errors.As(err, &diags) {
				t.Fatalf("%v, want diagnostics", err)
			}
			for _, d := range diags {
				if strings.Contains(d.Error(), c.want) {
					return
				}
			}
			t.Errorf("%v\nwant %s", diags.Errs(), c.want)
		})
	}
}

func TestAliasesDoNotUnfoldForEver(t *testing.T) {
	text := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 9 {
		c, p := string(rune('b'+i)), string(rune('a'+i))
		text += c + ": &" + c + " [*" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + ", *" + p + "]\n"
	}
	if _, diags := yamlValues("bomb.yaml", []byte(text)); !diags.HasErrors() {
		t.Error("no error")
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Load(ctx, Options{Path: "s", FS: fsOf(map[string]string{"a.nomad.hcl": `job "a" {}`})})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
