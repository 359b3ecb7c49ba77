package analysis

import (
	"context"
	"crypto/tls"
	"net/http"
	"time"

	"github.com/drover-nomad/drover/prometheus"
	"github.com/drover-nomad/drover/stack"
)

// Credentials are those of the source of a metric. With a Username, Secret is its
// password; without one, a bearer token.
type Credentials struct{ Username, Secret string }

// Source answers the queries of one metric.
type Source struct {
	query  string
	client prometheus.Client
}

// queryTimeout is the limit of one query.
const queryTimeout = 10 * time.Second

// NewSource returns the source of a metric. Close it after use.
func NewSource(m *stack.Metric, auth Credentials) *Source {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if m.TLSSkipVerify {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the environment asks for it
	}
	return &Source{query: m.Query, client: prometheus.Client{
		Address: m.Prometheus, HTTP: &http.Client{Transport: transport, Timeout: queryTimeout},
		Username: auth.Username, Secret: auth.Secret,
	}}
}

// Close closes idle connections.
func (s *Source) Close() { s.client.HTTP.CloseIdleConnections() }

// Query evaluates the query of the metric now; see [prometheus.Client.Query].
func (s *Source) Query(ctx context.Context) ([]float64, error) {
	return s.client.Query(ctx, s.query, time.Time{})
}
