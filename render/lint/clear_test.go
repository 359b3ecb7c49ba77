package lint

import "testing"

// TestMayHaveSecret: a job is parsed for secret-in-clear whenever one of its names may be
// that of a secret, however it is written.
func TestMayHaveSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"env {\n  DB_PASSWORD = \"x\"\n}":                          true,
		"env = { A = \"b\", API_TOKEN = \"x\" }":                   true,
		"env = { \"api.key\": \"x\" }":                             true,
		"env = { \"my password\" = \"x\" }":                        true,
		"env = {\"pass\\u0077ord\" = \"x\"}":                       true,
		"config {\n  labels { dbPwd=\"x\" }\n}":                    true,
		"env {\n  SALT\t=\"x\"\n}":                                 true,
		"env {\n  HOST = \"x\"\n  PORT = 1\n}":                     false,
		"data = <<EOT\nPASSWORD={{ .db.Value | toJSON }}\nEOT\n":   false,
		"destination = \"secrets/env\"\n":                          false,
		"data = <<EOT\nPASSWORD = {{ .db.Value | toJSON }}\nEOT\n": false,
	} {
		if got := mayHaveSecret([]byte(text)); got != want {
			t.Errorf("%s: got %t, want %t", text, got, want)
		}
	}
}
