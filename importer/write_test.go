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

// TestWrite_SecretsOfARun: a periodic job reads the variable of its parent, since each run
// has an ID of its own.
func TestWrite_SecretsOfARun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		periodic *Periodic
		want     string
	}{
		"a service":      {nil, `"NOMAD_JOB_ID"`},
		"a periodic job": {&Periodic{Crons: []string{"@daily"}}, `"NOMAD_JOB_PARENT_ID"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &Model{Name: "s", Secrets: []Secret{{Name: "b"}}, Services: []*Service{{Name: "a", Kind: KindBatch, Periodic: c.periodic, Tasks: []*Task{{
				Name: "a", Image: Lit("a:1"), ImageRef: "a:1",
				Env:   []EnvVar{{Name: "B", Value: SecretText("b")}},
				Files: []File{{Target: "/etc/b", Content: SecretText("b"), IsSecret: true}},
			}}}}}
			complete(m, Source{Inputs: []Input{{Name: "x"}}}, NewLedger(nil))
			got := string(write(m).out["a.nomad.hcl"].Text)
			plain := strings.ReplaceAll(got, `\"`, `"`)
			if n := strings.Count(plain, `(printf "nomad/jobs/%s" (env `+c.want+`))`); n != 2 || strings.Count(plain, "nomadVar") != 2 {
				t.Errorf("got\n%s\nwant two templates that read the variable of %s", got, c.want)
			}
		})
	}
}

// TestWrite_FilesInDirectory: a file below a directory that is mounted read-only is
// rendered into the directory, as a secret if one of its files is.
func TestWrite_FilesInDirectory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		file File
		want string
	}{
		{"a file", File{Target: "/etc/app/b", Content: Lit("b")}, `volumes = ["local/etc/app:/etc/app:ro"]`},
		{"a secret", File{Target: "/etc/app/b", Content: SecretText("b"), IsSecret: true}, `volumes = ["secrets/etc/app:/etc/app:ro"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := &Model{Name: "s", Secrets: []Secret{{Name: "b"}}, Services: []*Service{{Name: "a", Tasks: []*Task{{
				Name: "a", Image: Lit("a:1"), ImageRef: "a:1",
				Mounts: []Mount{{Kind: "local", Source: "etc/app", Target: "/etc/app", ReadOnly: true}},
				Files:  []File{{Target: "/etc/app/a", Content: Lit("a"), Covered: true}, c.file},
			}}}}}
			complete(m, Source{Inputs: []Input{{Name: "x"}}}, NewLedger(nil))
			got := string(write(m).out["a.nomad.hcl"].Text)
			dir, _, _ := strings.Cut(strings.TrimPrefix(c.want, `volumes = ["`), ":")
			for _, want := range []string{c.want, `destination = "` + dir + `/a"`, `destination = "` + dir + `/b"`} {
				if !strings.Contains(strings.Join(strings.Fields(got), " "), want) {
					t.Errorf("got\n%s\nwant %s", got, want)
				}
			}
		})
	}
}

// TestDelimiters: those of a template are not in its text.
func TestDelimiters(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"a": "{{ }}", "[[[ a ]]]": "{{ }}", "{{ a }}": "[[[ ]]]", "{{ a }} [[[": "[[[[ ]]]]"} {
		if left, right := delimiters(&document{}, text); left+" "+right != want {
			t.Errorf("%s: got %s %s, want %s", text, left, right, want)
		}
	}
}
