package rollout

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/render"
)

func TestCheckNamespaces(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Nomad-Index", "1")
		w.Header().Set("X-Nomad-LastContact", "0")
		switch strings.TrimPrefix(r.URL.Path, "/v1/namespace/") {
		case "team":
			_, _ = w.Write([]byte(`{"Name": "team"}`))
		case "closed":
			http.Error(w, "Permission denied", http.StatusForbidden)
		default:
			http.Error(w, "Namespace not found", http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close) // after the parallel subtests
	client, err := nomadClient(s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		client, job string // namespaces
		want        string
	}{
		"the default":                               {},
		"that of the client":                        {client: "team"},
		"that of the job":                           {job: "team"},
		"that of the client does not exist":         {client: "nosuch", want: "NOMAD_NAMESPACE names namespace \"nosuch\", which does not exist"},
		"that of the job does not exist":            {client: "team", job: "nosuch", want: "job \"web\" names namespace \"nosuch\", which does not exist"},
		"the record where the token has variables":  {client: "closed", job: "team"},
		"a job where the token may do nothing":      {client: "closed", want: "Permission denied"},
		"another job where it may do nothing":       {client: "team", job: "closed", want: "Permission denied"},
		"the record does not exist, the job's does": {client: "nosuch", job: "team", want: "NOMAD_NAMESPACE names namespace \"nosuch\""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			job := mockJob("web", runs())
			if c.job != "" {
				job.Namespace = &c.job
			}
			err := CheckNamespaces(t.Context(), nomad.Clients{Nomad: client, Defaults: nomad.Defaults{Namespace: c.client}}, []render.Job{service(job)})
			if got := errText(err); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			var missing *NoNamespaceError
			if errors.As(err, &missing) != strings.Contains(c.want, "names namespace") {
				t.Errorf("got %T", err)
			}
		})
	}
}
