package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/edge"
)

func TestAtEdge(t *testing.T) {
	t.Parallel()
	const limit = 50 * time.Millisecond
	hang := func(ctx context.Context) (*edge.Report, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("listing services: %w", ctx.Err())
	}
	report := func(i edge.Instance) func(context.Context) (*edge.Report, error) {
		i.Node = "n1"
		return func(context.Context) (*edge.Report, error) { return &edge.Report{Instances: []edge.Instance{i}}, nil }
	}
	served := func(name string, match bool) []edge.CertificateStatus {
		return []edge.CertificateStatus{{Name: name, Served: acme.Served{Match: match, Problem: "serves another one"}}}
	}
	for name, c := range map[string]struct {
		look    func(context.Context) (*edge.Report, error)
		want    []string
		refused bool
	}{
		"no answer in time":     {hang, []string{"Consul or the edge did not answer within 50ms; look at drover edge status"}, false},
		"no Consul":             {func(context.Context) (*edge.Report, error) { return nil, errors.New("connection refused") }, nil, false},
		"served":                {report(edge.Instance{Certificates: served("public", true)}), nil, false},
		"another is not served": {report(edge.Instance{Certificates: served("other", false)}), nil, false},
		"not served":            {report(edge.Instance{Certificates: served("public", false)}), []string{"n1: serves another one; `drover edge status` shows the details"}, false},
		"no answer":             {report(edge.Instance{Problem: "does not answer"}), []string{"n1: does not answer"}, false},
		"refused":               {report(edge.Instance{Refused: "bad file"}), []string{"n1 refused its last configuration and serves the one before: bad file"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, refused := atEdge(t.Context(), limit, "public", c.look)
			if !slices.Equal(got, c.want) || refused != c.refused {
				t.Errorf("got notes %q and refused %t, want %q and %t", got, refused, c.want, c.refused)
			}
		})
	}
}

// An interrupted command says nothing about the edge.
func TestAtEdge_Interrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, refused := atEdge(ctx, time.Hour, "public", func(ctx context.Context) (*edge.Report, error) { return nil, ctx.Err() }); got != nil || refused {
		t.Errorf("got notes %q and refused %t, want none", got, refused)
	}
}
