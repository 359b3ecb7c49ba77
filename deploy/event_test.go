package deploy

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/dns"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

func TestEvent_JSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	code := 8
	for name, c := range map[string]struct {
		event Event
		want  string
	}{
		"of a service": {
			Event{Time: at, Kind: "progress", Release: &release.Event{Event: rollout.Event{Time: at, Kind: "progress", Service: "web", JobID: "web", Desired: 2}, Number: 3}},
			`{"time":"2026-01-02T03:04:05Z","event":"progress","service":"web","job_id":"web","healthy":0,"desired":2,"release":3}`,
		},
		"volume": {Event{Time: at, Kind: KindVolume, Volume: &Volume{Name: "data"}}, `{"event":"volume-created","time":"2026-01-02T03:04:05Z","volume":"data"}`},
		"volume of a target": {
			Event{Time: at, Kind: KindVolume, Volume: &Volume{Name: "data", Target: "b"}},
			`{"event":"volume-created","target":"b","time":"2026-01-02T03:04:05Z","volume":"data"}`,
		},
		"secrets": {
			Event{Time: at, Kind: KindSecrets, Secrets: &Secrets{Made: record.Generated{Secrets: []string{"key"}}, Jobs: []string{"web"}}},
			`{"changes":null,"event":"secrets","generated":["key"],"jobs":["web"],"renewed":null,"time":"2026-01-02T03:04:05Z"}`,
		},
		"certificate": {
			Event{Time: at, Kind: KindCertificate, Certificate: &acme.Event{Time: at, Kind: "issued", Certificate: "public", Text: "ok"}},
			`{"event":"certificate","time":"2026-01-02T03:04:05Z","kind":"issued","certificate":"public","text":"ok"}`,
		},
		"record": {
			Event{Time: at, Kind: KindRecord, Record: &dns.Change{Action: dns.Create, Zone: "example.org.", Key: dns.Key{Name: "www.example.org.", Type: "A"}}},
			`{"time":"2026-01-02T03:04:05Z","event":"record","action":"create","zone":"example.org.","name":"www.example.org.","type":"A"}`,
		},
		"end without a release": {
			Event{Time: at, Kind: KindEnd, End: &End{Err: errors.New("no such thing")}},
			`{"error":"no such thing","event":"end","time":"2026-01-02T03:04:05Z","version":1}`,
		},
		"end of a release": {
			Event{Time: at, Kind: KindEnd, End: &End{
				Stack: "shop", Environment: "prod", Outcome: rollout.TimedOut, ExitCode: &code,
				Result: &release.Result{Release: &record.Release{Number: 4, State: record.Reverted, Cause: "timed-out"}, Back: &rollout.Result{}},
			}},
			`{"back":null,"cause":"timed-out","elapsed_ns":0,"environment":"prod","event":"end","exit_code":8,"outcome":"timed-out","pruned":null,"release":4,` +
				`"services":null,"stack":"shop","state":"reverted","time":"2026-01-02T03:04:05Z","version":1}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(c.event)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("unknown kind", func(t *testing.T) {
		if got, err := json.Marshal(Event{Kind: "nothing"}); err == nil {
			t.Errorf("got %s, want an error", got)
		}
	})
}
