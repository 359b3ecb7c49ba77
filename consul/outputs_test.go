package consul

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	capi "github.com/hashicorp/consul/api"
)

// TestOutputs asks an agent for the output of a check that the catalog does not have yet.
func TestOutputs(t *testing.T) {
	t.Parallel()
	const known = `{"c":{"Name":"listens","ServiceName":"web","ServiceID":"_nomad-task-0a1b-web","Status":"critical","Output":"refused\n"}}`
	failing := Failing{Service: "web", AllocID: "0a1b", Check: "listens", Status: "critical"}
	with := func(f Failing, output string) Failing {
		f.Output = output
		return f
	}
	for name, c := range map[string]struct {
		agent         string // "" if it does not answer
		listed, prior Failing
		want          string
	}{
		"of the catalog":         {known, with(failing, "timed out"), Failing{}, "timed out"},
		"of the agent":           {known, failing, with(failing, "timed out"), "refused"},
		"removed from the agent": {"{}", failing, with(failing, "refused"), "refused"},
		"not run again yet":      {`{"c":{"Name":"listens","ServiceName":"web","ServiceID":"_nomad-task-0a1b-web"}}`, failing, with(failing, "refused"), "refused"},
		"no agent":               {"", failing, with(failing, "refused"), "refused"},
		"another allocation's":   {"{}", failing, with(Failing{Service: "web", AllocID: "2c3d", Check: "listens", Status: "critical"}, "refused"), ""},
		"of another status":      {"{}", failing, with(Failing{Service: "web", AllocID: "0a1b", Check: "listens", Status: "warning"}, "slow"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.agent == "" || r.URL.Path != "/v1/agent/checks" {
					http.Error(w, "busy", http.StatusInternalServerError)
					return
				}
				fmt.Fprint(w, c.agent)
			}))
			t.Cleanup(s.Close)
			client, err := capi.NewClient(&capi.Config{Address: s.URL})
			if err != nil {
				t.Fatal(err)
			}
			got := Outputs(t.Context(), client, []Failing{c.listed}, []Failing{c.prior})
			if len(got) != 1 || got[0].Output != c.want {
				t.Errorf("got %+v, want output %q", got, c.want)
			}
		})
	}
}
