package lint_test

import (
	"testing"

	"github.com/drover-nomad/drover/render/lint"
)

// TestInClear: names that are a secret, with any value that is one; names that only speak
// of a secret, with a number; switches.
func TestInClear(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key, text string
		want      bool
	}{
		{"DB_PASSWORD", "hunter2", true},
		{"DB_PASS", "hunter2", true},
		{"PASS", "hunter2", true},
		{"MYSQL_PWD", "hunter2", true},
		{"dbPass", "hunter2", true},
		{"accessKey", "hunter2", true},
		{"AUTH_SALT", "hunter2", true},
		{"SMTP_CREDENTIALS", "bob:hunter2", true},
		{"DB_PASSWORD", "123456", true},
		{"DB_PASS", "0042", true},
		{"TOKEN", "8675309", true},
		{"MAX_TOKENS", "4096", false},
		{"ACCESS_TOKEN_VERIFY_METHOD", "none", false},
		{"MAX_TOKEN", "4096", false},
		{"SECRET_ROTATION", "30", false},
		{"PASSWORD_MIN_LENGTH", "12", false},
		{"ALLOW_EMPTY_PASSWORD", "yes", false},
		{"ALLOW_EMPTY_PASSWORD", "1", false},
		{"USE_TOKEN", "TRUE", false},
		{"PWD", "/srv", false},
		{"BYPASS", "x", false},
		{"COMPASS", "x", false},
		{"MONKEY", "x", false},
		{"SSH_PUBLIC_KEY", "ssh-ed25519 AAAA", false},
		{"DB_PASSWORD_FILE", "/run/secrets/db", false},
		{"DB_PASSWORD", "${NOMAD_SECRETS_DIR}", false},
	} {
		if got := lint.InClear(c.key, c.text); got != c.want {
			t.Errorf("%s=%s: got %v, want %v", c.key, c.text, got, c.want)
		}
	}
}
