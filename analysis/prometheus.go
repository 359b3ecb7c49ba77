package analysis

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/drover-nomad/drover/stack"
)

// Credentials are those of the source of a metric. With a Username, Secret is its
// password; without one, a bearer token.
type Credentials struct{ Username, Secret string }

// RefusedError is the error of a query that the source cannot evaluate.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return "the source refuses the query: " + e.Text }

// Source answers the queries of one metric.
type Source struct {
	metric *stack.Metric
	auth   Credentials
	client *http.Client
}

// queryTimeout is the limit of one query.
const queryTimeout = 10 * time.Second

// maxAnswer is the longest answer that is read, in bytes: some ten thousand series.
const maxAnswer = 4 << 20

// NewSource returns the source of a metric. Close it after use.
func NewSource(m *stack.Metric, auth Credentials) *Source {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if m.TLSSkipVerify {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the environment asks for it
	}
	return &Source{metric: m, auth: auth, client: &http.Client{Transport: transport, Timeout: queryTimeout}}
}

// Close closes idle connections.
func (s *Source) Close() { s.client.CloseIdleConnections() }

// Query evaluates the query of the metric now (GET /api/v1/query of Prometheus' HTTP
// API) and returns the value of each series. It returns a *RefusedError if the source
// cannot evaluate the query, and another error if there is no answer.
func (s *Source) Query(ctx context.Context) ([]float64, error) {
	u := strings.TrimRight(s.metric.Prometheus, "/") + "/api/v1/query?" + url.Values{"query": {s.metric.Query}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, errors.New("cannot make the request: " + withoutURL(err))
	}
	switch {
	case s.auth.Username != "":
		req.SetBasicAuth(s.auth.Username, s.auth.Secret)
	case s.auth.Secret != "":
		req.Header.Set("Authorization", "Bearer "+s.auth.Secret)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, errors.New("no answer: " + withoutURL(err))
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, errors.New("the answer broke off: " + withoutURL(err))
	case len(body) > maxAnswer:
		return nil, &RefusedError{"the answer has more than 4 MiB; aggregate the query"}
	}
	return parse(resp.StatusCode, body)
}

// answer is that of /api/v1/query.
type answer struct {
	Status    string `json:"status"`
	Error     string `json:"error"`
	IsPartial bool   `json:"isPartial"` // of a VictoriaMetrics cluster
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// parse reads the answer with that HTTP status.
func parse(status int, body []byte) ([]float64, error) {
	var a answer
	err := json.Unmarshal(body, &a)
	switch {
	case status == http.StatusBadRequest || status == http.StatusUnprocessableEntity: // bad_data, execution
		if a.Error == "" {
			a.Error = fmt.Sprintf("HTTP status %d", status)
		}
		return nil, &RefusedError{a.Error}
	case status != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d", status)
	case err != nil || a.Status != "success":
		return nil, errors.New("the answer is not one of Prometheus' HTTP API")
	case a.IsPartial:
		return nil, errors.New("the answer is partial: a part of the storage is away")
	}
	type sample = [2]any // Unix time in seconds, value as text
	var samples []sample
	switch a.Data.Type {
	case "vector":
		var vector []struct {
			Value sample `json:"value"`
		}
		err = json.Unmarshal(a.Data.Result, &vector)
		for _, v := range vector {
			samples = append(samples, v.Value)
		}
	case "scalar":
		samples = make([]sample, 1)
		err = json.Unmarshal(a.Data.Result, &samples[0])
	default:
		return nil, &RefusedError{fmt.Sprintf("its result is a %s, not a vector or a scalar", a.Data.Type)}
	}
	if err != nil {
		return nil, errors.New("the answer is not one of Prometheus' HTTP API")
	}
	series := make([]float64, len(samples))
	for i, v := range samples {
		text, _ := v[1].(string) // "" for a native histogram
		if series[i], err = strconv.ParseFloat(text, 64); err != nil {
			return nil, &RefusedError{"a series of its result is not a number"}
		}
	}
	return series, nil
}

// withoutURL drops the URL, which is long and repeats the query.
func withoutURL(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}
