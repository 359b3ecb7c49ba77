package stack

import (
	"strings"
	"testing"
	"time"
)

func TestServiceLimits(t *testing.T) {
	t.Parallel()
	load := func(service string) (*Stack, error) {
		return Load(t.Context(), Options{Path: "shop", FS: fsOf(map[string]string{
			"stack.hcl": "stack \"shop\" {}\nservice \"web\" {\n" + service + "\n}\n", "web.nomad.hcl": `job "web" {}`,
		})})
	}
	s, err := load("timeout = \"1h\"\nplacement_timeout = \"20m\"")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Services[0].Limits, (Limits{Timeout: time.Hour, PlacementTimeout: 20 * time.Minute}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	frozen, err := Freeze(s)
	if err != nil {
		t.Fatal(err)
	}
	if thawed, err := Thaw(frozen); err != nil || thawed.Services[0].Limits != s.Services[0].Limits {
		t.Errorf("a saved plan loses them: %v", err)
	}
	for text, want := range map[string]string{
		`timeout = "soon"`:                              `Invalid timeout "soon"`,
		`placement_timeout = "-1m"`:                     `Invalid placement_timeout "-1m"`,
		"timeout = \"5m\"\nplacement_timeout = \"10m\"": `longer than its timeout`,
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
