package rollout

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/stack"
)

func TestCheckRequired_Namespace(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch ns := r.URL.Query().Get("namespace"); r.URL.Path + " " + ns {
		case "/v1/job/mesh team", "/v1/job/edge ":
			fmt.Fprint(w, `{"Status": "running"}`)
		case "/v1/job/mesh ":
			fmt.Fprint(w, `{"Status": "dead"}`) // another one, in the client's namespace
		default:
			http.Error(w, "job not found", http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	c, err := nomadClient(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		target   *stack.Target
		required []string
		want     string // "" for no error
	}{
		"in the namespace of the target":       {&stack.Target{Namespace: "team"}, []string{"mesh"}, ""},
		"shared, in the client's namespace":    {&stack.Target{Namespace: "team"}, []string{"edge"}, ""},
		"without a namespace, in the client's": {&stack.Target{}, []string{"mesh"}, "is dead"},
		"nowhere":                              {&stack.Target{Namespace: "team"}, []string{"nothing"}, "is not there in namespace team or default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := CheckRequired(t.Context(), nomad.Clients{Nomad: c, Defaults: nomad.Defaults{}, Target: tt.target}, tt.required)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
