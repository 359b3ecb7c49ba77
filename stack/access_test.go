package stack

import (
	"os"
	"path/filepath"
	"testing"
)

// The record of a release keeps the files with which a cluster is reached, and is
// read from any directory.
func TestEnvironmentFile_IsAbsolute(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, name, want string }{
		{"jobs", "ca.pem", filepath.Join(here, "jobs", "ca.pem")},
		{".", "tls/ca.pem", filepath.Join(here, "tls", "ca.pem")},
		{"/srv/jobs", "ca.pem", "/srv/jobs/ca.pem"},
		{"jobs", "/etc/ca.pem", "/etc/ca.pem"},
		{"jobs", "", ""},
		{"", "ca.pem", "ca.pem"}, // a stack that ships with drover has no directory
	} {
		r := &environmentReader{s: &Stack{Dir: test.dir}}
		if got := r.file(test.name); got != test.want {
			t.Errorf("%q in %q: got %q, want %q", test.name, test.dir, got, test.want)
		}
	}
}
