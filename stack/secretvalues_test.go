package stack

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Variables that pass secrets are in no record and no plan; the others are.
func TestPublicValues(t *testing.T) {
	t.Parallel()
	const stackFile = `
certificate "public" {
  names  = ["a.example.org"]
  issuer = "ca"
}
issuer "ca" {
  directory_url = "https://${var.host}/directory"
  eab {
    key_id  = var.key_id
    mac_key = var.mac
  }
}
check "home" {
  url     = "https://${var.host}/"
  headers = { Depth = var.depth, authorization = "Bearer ${var.token}" }
  basic_auth {
    username = var.user
    password = trimspace(var["password"])
  }
}
check "all" {
  url     = "https://${var.host}/"
  headers = merge(var.headers, {})
}`
	const secret = "tell-nobody"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"used in stack.hcl": {map[string]string{"stack.hcl": stackFile}, []string{"depth", "host", "key_id", "user"}},
		"declared anew by a service": {map[string]string{
			"stack.hcl": stackFile + "\nservice \"web.one\" {}",
			"web.one.nomad.hcl": `variable "mac" { type = string }
job "web" {}`,
		}, []string{"depth", "host", "key_id", "user"}},
		"used nowhere": {map[string]string{"web.nomad.hcl": `job "web" {}`}, []string{"depth", "headers", "host", "key_id", "mac", "password", "token", "user"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(c.files)
			files["variables.hcl"] = `
variable "host" { default = "example.org" }
variable "depth" { default = "0" }
variable "key_id" { default = "kid" }
variable "user" { default = "u" }
variable "mac" { type = string }
variable "token" { type = string }
variable "password" { type = string }
variable "headers" { type = map(string) }`
			s, err := Load(t.Context(), Options{Path: "shop", FS: fsOf(files), Environ: []string{
				"NOMAD_VAR_mac=" + secret, "NOMAD_VAR_token=" + secret, "NOMAD_VAR_password=" + secret, `NOMAD_VAR_headers={ X = "` + secret + `" }`,
			}})
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(s.PublicValues())); !slices.Equal(got, c.want) {
				t.Errorf("public are %v, want %v", got, c.want)
			}
			text, err := Freeze(s)
			if err != nil {
				t.Fatal(err)
			}
			if len(s.SecretVariables) > 0 && strings.Contains(string(text), secret) {
				t.Errorf("a secret is in the plan:\n%s", text)
			}
			thawed, err := Thaw(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Sorted(maps.Keys(thawed.PublicValues())); !slices.Equal(got, c.want) {
				t.Errorf("after it was thawed, %v are public, want %v", got, c.want)
			}
		})
	}
}
