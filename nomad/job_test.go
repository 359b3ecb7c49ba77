package nomad

import "testing"

func TestDefaults_JobID(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		defaults Defaults
		a, b     [2]string // region and namespace
		same     bool
	}{
		"the namespace of the client, written down":       {Defaults{"global", "team"}, [2]string{"", ""}, [2]string{"", "team"}, true},
		"the namespace default is not that of the client": {Defaults{"global", "team"}, [2]string{"", ""}, [2]string{"", "default"}, false},
		"the namespace default":                           {Defaults{Region: "global"}, [2]string{"", ""}, [2]string{"", "default"}, true},
		"the region of the client, written down":          {Defaults{"global", ""}, [2]string{"", ""}, [2]string{"global", ""}, true},
		"another region":                                  {Defaults{"global", ""}, [2]string{"", ""}, [2]string{"west", ""}, false},
		"a region when that of the client is unknown":     {Defaults{}, [2]string{"", ""}, [2]string{"west", ""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := tt.defaults.JobID(tt.a[0], tt.a[1], "web"), tt.defaults.JobID(tt.b[0], tt.b[1], "web")
			if (a == b) != tt.same {
				t.Errorf("got %+v and %+v, want same: %t", a, b, tt.same)
			}
		})
	}
}
