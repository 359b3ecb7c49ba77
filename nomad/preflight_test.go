package nomad

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/stack"
)

func TestTooOld(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{"1.9.7": true, "0.12.0": true, "1.10.0": false, "1.11.3": false, "2.0.1": false, "v1.8.0-dev": true, "": false, "dev": false} {
		if got := tooOld(version, minNomadMajor, minNomadMinor); got != want {
			t.Errorf("tooOld(%q): got %v, want %v", version, got, want)
		}
	}
}

func TestDial_Preflight(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status     int
		body, want string // "" for no error
	}{
		"an old version":                     {200, `{"config":{"Version":{"Version":"1.9.3"}}}`, "has version 1.9.3; drover needs 1.10"},
		"a supported version":                {200, `{"config":{"Version":{"Version":"1.11.3"},"Region":"global"}}`, ""},
		"an unknown token":                   {403, "ACL token not found", "refuses the token"},
		"a token that may not see the agent": {403, "Permission denied", ""},
		"no leader":                          {500, "No cluster leader", "answers 500"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/regions" {
					fmt.Fprint(w, `["global"]`)
					return
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			}))
			t.Cleanup(srv.Close)
			got, err := Dial(t.Context(), &stack.Target{Cluster: &stack.Cluster{Access: stack.Access{Address: srv.URL}}}, false)
			if c.want == "" {
				if err != nil || got.Defaults.Region != "global" {
					t.Errorf("got region %q, error %v; want global, nil", got.Defaults.Region, err)
				}
				return
			}
			if cluster := (&ClusterError{}); !errors.As(err, &cluster) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a *ClusterError with %q", err, c.want)
			}
		})
	}
}

func TestDial_NamesTheAddressOfAServerThatIsDown(t *testing.T) {
	t.Parallel()
	target := &stack.Target{Name: "east", Cluster: &stack.Cluster{Name: "far", Access: stack.Access{Address: "http://127.0.0.1:1"}}}
	_, err := Dial(t.Context(), target, false)
	for _, want := range []string{"Nomad of target east at http://127.0.0.1:1 cannot be reached", `cluster "far"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
