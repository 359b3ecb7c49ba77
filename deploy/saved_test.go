package deploy

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

func TestCheckSecrets(t *testing.T) {
	t.Parallel()
	web := func(added, changed, removed []string) *record.SecretChanges {
		return &record.SecretChanges{Jobs: []record.JobSecrets{{Service: "web", JobID: "web", Added: added, Changed: changed, Removed: removed}}}
	}
	some := []string{"a"}
	for name, tt := range map[string]struct {
		then, now *record.SecretChanges
		moved     bool
	}{
		"nothing":                     {nil, nil, false},
		"the same":                    {web(some, some, some), web(some, some, some), false},
		"less":                        {web(nil, some, some), nil, false},
		"an item is added":            {nil, web(some, nil, nil), false},
		"an item gets another value":  {nil, web(nil, some, nil), true},
		"an item is taken away":       {web(nil, some, nil), web(nil, nil, some), true},
		"a certificate is renewed":    {nil, &record.SecretChanges{Renewed: some}, true},
		"a certificate was to be so":  {&record.SecretChanges{Renewed: some}, &record.SecretChanges{Renewed: some}, false},
		"a secret has its value now":  {&record.SecretChanges{Missing: some}, web(some, nil, nil), false},
		"of the same job of a target": {web(nil, some, nil), &record.SecretChanges{Jobs: []record.JobSecrets{{Service: "web", Target: "eu", JobID: "web", Changed: some}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			saved, err := json.Marshal(tt.then)
			if err != nil {
				t.Fatal(err)
			}
			err = checkSecrets(saved, tt.now)
			var moved *release.StalePlanError
			if errors.As(err, &moved) != tt.moved || err != nil && moved == nil {
				t.Errorf("got %v, want an error: %v", err, tt.moved)
			}
		})
	}
	if err := checkSecrets(nil, web(nil, some, nil)); err != nil {
		t.Errorf("the plan of an older drover: %v", err)
	}
}
