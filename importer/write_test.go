package importer

import (
	"strings"
	"testing"
	"time"
)

// TestWrite_WhatNomadRefuses: a constraint with an empty text, and a task that may take
// longer to stop than its group to be deployed.
func TestWrite_WhatNomadRefuses(t *testing.T) {
	t.Parallel()
	m := &Model{Name: "s", Services: []*Service{{
		Name: "a", Constraints: []Constraint{{Attribute: "${meta.x}"}},
		Tasks: []*Task{{Name: "a", Image: Lit("a:1"), ImageRef: "a:1", KillTimeout: 30 * time.Minute}},
	}}}
	complete(m, Source{Inputs: []Input{{Name: "x"}}}, NewLedger(nil))
	got := string(write(m).out["a.nomad.hcl"].Text)
	for _, want := range []string{`"is_set"`, `progress_deadline = "35m"`} {
		if !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %s", got, want)
		}
	}
}
