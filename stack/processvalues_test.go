package stack

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestProcessValues(t *testing.T) {
	fs := fstest.MapFS{
		"variables.hcl":         {Data: []byte("variable \"domain\" {}\nvariable \"size\" { default = 1 }\nvariable \"flag\" { default = 1 }\nvariable \"bare\" {}\n")},
		"environments/prod.hcl": {Data: []byte("variables {\n  domain = \"example.org\"\n}\n")},
		"web.nomad.hcl":         {Data: []byte("variable \"own\" { default = 1 }\njob \"web\" {}\n")},
	}
	s, err := Load(t.Context(), Options{
		Path: "shop", FS: fs, Environment: "prod", Vars: []string{"flag=3"},
		Environ: []string{"NOMAD_VAR_domain=dev.test", "NOMAD_VAR_size=2", "NOMAD_VAR_flag=2", "NOMAD_VAR_bare=x", "NOMAD_VAR_own=2", "NOMAD_VAR_others=1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []ProcessValue{
		{"bare", "NOMAD_VAR_bare", ""},
		{"domain", "NOMAD_VAR_domain", "environment prod"},
		{"own", "NOMAD_VAR_own", "its default"},
		{"size", "NOMAD_VAR_size", "its default"},
	}
	if !slices.Equal(s.ProcessValues, want) {
		t.Errorf("got %+v\nwant %+v", s.ProcessValues, want)
	}
}
