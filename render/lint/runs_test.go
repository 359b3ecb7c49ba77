package lint

import "testing"

// TestJobIDs: what the path of a variable is made of, directly, through a variable of the
// template, and in actions with other delimiters.
func TestJobIDs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]bool{
		`{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) }}{{ .a }}{{ end }}`:                                   {true, false},
		`{{ with nomadVar (printf "nomad/jobs/%s/%s" (env "NOMAD_JOB_NAME") "x") }}{{ .a }}{{ end }}`:                          {true, false},
		`{{ with env "NOMAD_JOB_ID" | printf "nomad/jobs/%s" }}{{ if nomadVarExists . }}{{ end }}{{ end }}`:                    {true, false},
		`{{ $id := env "NOMAD_JOB_ID" }}{{ with nomadVar (printf "nomad/jobs/%s" $id) }}{{ .a }}{{ end }}`:                     {true, false},
		`{{ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_PARENT_ID")) }}{{ .a }}{{ end }}`:                            {false, true},
		`{{ with nomadVar (printf "nomad/jobs/%s" (or (env "NOMAD_JOB_PARENT_ID") (env "NOMAD_JOB_ID"))) }}{{ .a }}{{ end }}`:  {false, false},
		`{{ with nomadVar "nomad/jobs/web" }}{{ .a }}{{ env "NOMAD_JOB_ID" }}{{ end }}`:                                        {false, false},
		`{{ $id := env "NOMAD_JOB_ID" }}{{ $id2 := "web" }}{{ with nomadVar (printf "nomad/jobs/%s" $id2) }}{{ .a }}{{ end }}`: {false, false},
		`run {{ env "NOMAD_JOB_ID" }} reads nomad/jobs/web`:                                                                    {false, false},
		`nomad/jobs/ in a text that never ends {{ env "NOMAD_JOB_ID"`:                                                          {false, false},
	} {
		if id, parent := jobIDs(text, "{{", "}}"); id != want[0] || parent != want[1] {
			t.Errorf("%s: got %t and %t, want %t and %t", text, id, parent, want[0], want[1])
		}
	}
	if id, _ := jobIDs(`[[ with nomadVar (printf "nomad/jobs/%s" (env "NOMAD_JOB_ID")) ]]`, "[[", "]]"); !id {
		t.Error("with other delimiters, the ID is not found")
	}
}
