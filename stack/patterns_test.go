package stack

import "testing"

func TestPatterns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, label string
		want           bool
	}{
		{"ocis-{users,groups}", "ocis-groups", true},
		{"ocis-{users,groups}", "ocis-graph", false},
		{"{a,b}-{c*,d}", "b-cc", true},
		{"{a,b}-{c*,d}", "c-d", false},
		{"web{,-?}", "web", true},
		{"web{,-?}", "web-1", true},
		{"web-?", "web-1", true},
		{"{web}", "{web}", true},
		{"{web}", "web", false},
		{"{web,db", "web", false},
	} {
		if got, err := Match(c.pattern, c.label); got != c.want || err != nil {
			t.Errorf("Match(%q, %q): got %t, %v, want %t", c.pattern, c.label, got, err, c.want)
		}
	}
	if _, err := Match("{a,[}", "a"); err == nil {
		t.Error(`Match("{a,[}", "a"): got no error, want one`)
	}
	for label, want := range map[string]bool{"web": false, "{web}": false, "{web,db": false, "{web,db}": true, "w*": true, "w?": true, "[wd]eb": true} {
		if got := IsPattern(label); got != want {
			t.Errorf("IsPattern(%q): got %t, want %t", label, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"{web,db}", "db", true},
		{"{web,db}", "api", false},
		{"{web,db}", "{api,db}", true},
		{"{web,db}", "{api,job}", false},
		{"{web,db}-*", "db-1", true},
		{"{web,db}-*", "api-*", false},
	} {
		for _, p := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			if got := PatternsOverlap(p[0], p[1]); got != c.want {
				t.Errorf("PatternsOverlap(%q, %q): got %t, want %t", p[0], p[1], got, c.want)
			}
		}
	}
}
