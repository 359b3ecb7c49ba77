package stack

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestScrub(t *testing.T) {
	t.Parallel()
	// As an older drover froze it.
	old := `{"Stack":{"Name":"shop","Environment":"prod",
		"Issuers":[{"Name":"ca","EABKeyID":"kid","EABMACKey":"eab-in-clear"}],
		"Checks":[{"Name":"login","URL":"https://shop.example/","Username":"u","Password":"check-in-clear","Headers":{"Authorization":"Bearer header-in-clear"}}],
		"Waves":[{"Name":"all","Bake":1000000000,"Gate":{"HTTP":{"Name":"all","URL":"https://me:url-in-clear@shop.example/","Password":"gate-in-clear"},"Timeout":300000000000}}]},
		"Values":{"mac":{"value":"eab-in-clear","type":"string"},"web.pass":{"value":"check-in-clear","type":"string"},"domain":{"value":"shop.example","type":"string"}}}`
	out, changed, err := Scrub([]byte(old))
	if err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	if strings.Contains(string(out), "in-clear") {
		t.Errorf("a secret is still there:\n%s", out)
	}
	s, err := Thaw(out)
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "shop" || s.Issuers[0].EABKeyID != "kid" || len(s.Values) != 1 || s.Values["domain"].AsString() != "shop.example" || s.Waves[0].Gate.HTTP.URL != "https://shop.example/" {
		t.Errorf("more than the secrets is gone:\n%s", out)
	}
	again, changed, err := Scrub(out)
	if err != nil || changed || string(again) != string(out) {
		t.Errorf("once more: %v, %v", changed, err)
	}
}

func TestScrubWave(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		check   string
		changed bool
	}{
		"password":  {`{"URL":"https://a.example/","Username":"u","Password":"in-clear"}`, true},
		"header":    {`{"URL":"https://a.example/","Headers":{"authorization":"in-clear","Accept":"text/html"}}`, true},
		"URL":       {`{"URL":"https://u:in-clear@a.example/"}`, true},
		"no secret": {`{"URL":"https://a.example/","Headers":{"Accept":"text/html"}}`, false},
		"no probe":  {`null`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, changed, err := ScrubWave([]byte(`{"Name":"all","Members":[{"Target":"","Service":"a"}],"Gate":{"HTTP":` + test.check + `,"Secret":"pw"}}`))
			if err != nil || changed != test.changed || strings.Contains(string(out), "in-clear") {
				t.Errorf("%s, %v, %v", out, changed, err)
			}
			var w Wave
			if err := json.Unmarshal(out, &w); err != nil || w.Name != "all" || len(w.Members) != 1 || w.Gate.Secret != "pw" {
				t.Errorf("%+v, %v", w, err)
			}
		})
	}
}
