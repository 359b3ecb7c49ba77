package acl_test

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acl"
	"github.com/drover-nomad/drover/acme"
)

// The package below acme cannot name its paths by their constants.
func TestPathsOfCertificates(t *testing.T) {
	t.Parallel()
	text := acl.Scope{}.Nomad(acl.Controller).Rules
	if !strings.Contains(text, `path "`+acme.CertFolder+`/*"`) {
		t.Errorf("the controller may not write certificates:\n%s", text)
	}
}
