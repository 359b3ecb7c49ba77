package edge

import (
	"strings"
	"testing"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// A certificate is where package acme has it, also one that is called as a wildcard.
func TestEdges_ReadCertificatesByName(t *testing.T) {
	t.Parallel()
	for dir, variable := range map[string]string{"edge": `certificates=["%"]`, "edge-nginx": "certificate=%"} {
		for _, name := range []string{"public", "example.org", "*.example.org"} {
			files, err := jobs.Stack(dir)
			if err != nil {
				t.Fatal(err)
			}
			s, err := stack.Load(t.Context(), stack.Options{Path: dir, FS: files, Environment: "dev", Vars: []string{strings.Replace(variable, "%", name, 1)}})
			if err != nil {
				t.Fatal(err)
			}
			rendered, err := render.Stack(t.Context(), s, render.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, tmpl := range rendered[0].Job.TaskGroups[0].Tasks[0].Templates {
				if strings.Contains(*tmpl.EmbeddedTmpl, `nomadVar "`+acme.Path(name)+`"`) {
					found = true
					if strings.Contains(*tmpl.DestPath, "*") {
						t.Errorf("%s: the file %s of certificate %s is a pattern for a shell", dir, *tmpl.DestPath, name)
					}
				}
			}
			if !found {
				t.Errorf("%s does not read the variable %s of certificate %s", dir, acme.Path(name), name)
			}
		}
	}
}
