// Package prometheus evaluates queries on servers with the HTTP API of Prometheus, such as
// Prometheus and VictoriaMetrics (https://prometheus.io/docs/prometheus/latest/querying/api/).
package prometheus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client asks one server.
type Client struct {
	Address string // such as http://127.0.0.1:9090; a path stays before that of the API
	HTTP    *http.Client
	// Username and Secret are sent with each query: with a Username, Secret is its
	// password; without one, a bearer token. Both are empty for none.
	Username, Secret string
}

// RefusedError is the error of a query that the server cannot evaluate.
type RefusedError struct{ Text string }

func (e *RefusedError) Error() string { return "the source refuses the query: " + e.Text }

// maxAnswer is the longest answer that is read, in bytes: some ten thousand series.
const maxAnswer = 4 << 20

// errForeign is the error of an answer in another format.
var errForeign = errors.New("the answer is not one of Prometheus' HTTP API")

// Query evaluates a query at a time (GET /api/v1/query), the server's own if it is zero.
// It returns the value of each series; a scalar is one. It returns a *RefusedError if the
// server cannot evaluate the query, and another error if there is no whole answer. No
// error has the query or the secret in it.
func (c Client) Query(ctx context.Context, query string, at time.Time) ([]float64, error) {
	values := url.Values{"query": {query}}
	if !at.IsZero() {
		values.Set("time", seconds(at))
	}
	kind, result, err := c.get(ctx, "/api/v1/query", values)
	if err != nil {
		return nil, err
	}
	var samples []sample
	switch kind {
	case "vector":
		var vector []struct {
			Value sample `json:"value"`
		}
		err = json.Unmarshal(result, &vector)
		for _, v := range vector {
			samples = append(samples, v.Value)
		}
	case "scalar":
		samples = make([]sample, 1)
		err = json.Unmarshal(result, &samples[0])
	default:
		return nil, &RefusedError{fmt.Sprintf("its result is a %s, not a vector or a scalar", kind)}
	}
	if err != nil {
		return nil, errForeign
	}
	return numbers(samples)
}

// QueryRange evaluates a query at each step of a window (GET /api/v1/query_range). It
// returns the values of each series, the oldest first. Its errors are those of Query.
func (c Client) QueryRange(ctx context.Context, query string, from, to time.Time, step time.Duration) ([][]float64, error) {
	kind, result, err := c.get(ctx, "/api/v1/query_range", url.Values{
		"query": {query}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	})
	if err != nil {
		return nil, err
	}
	var matrix []struct {
		Values []sample `json:"values"`
	}
	if kind != "matrix" || json.Unmarshal(result, &matrix) != nil {
		return nil, errForeign
	}
	out := make([][]float64, len(matrix))
	for i, series := range matrix {
		if out[i], err = numbers(series.Values); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// get returns the kind of the result of a query, and the result.
func (c Client) get(ctx context.Context, path string, values url.Values) (string, json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.Address, "/")+path+"?"+values.Encode(), nil)
	if err != nil {
		return "", nil, errors.New("cannot make the request: " + withoutURL(err))
	}
	switch {
	case c.Username != "":
		req.SetBasicAuth(c.Username, c.Secret)
	case c.Secret != "":
		req.Header.Set("Authorization", "Bearer "+c.Secret)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return "", nil, errors.New("no answer: " + withoutURL(err))
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", nil, errors.New("the answer broke off: " + withoutURL(err))
	case len(body) > maxAnswer:
		return "", nil, &RefusedError{"the answer has more than 4 MiB; aggregate the query"}
	}
	return parse(resp.StatusCode, body)
}

// parse reads the answer with that HTTP status.
func parse(status int, body []byte) (string, json.RawMessage, error) {
	var a struct {
		Status    string `json:"status"`
		Error     string `json:"error"`
		IsPartial bool   `json:"isPartial"` // of a VictoriaMetrics cluster
		Data      struct {
			Type   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	err := json.Unmarshal(body, &a)
	switch {
	case status == http.StatusBadRequest || status == http.StatusUnprocessableEntity: // bad_data, execution
		if a.Error == "" {
			a.Error = fmt.Sprintf("HTTP status %d", status)
		}
		return "", nil, &RefusedError{a.Error}
	case status != http.StatusOK:
		return "", nil, fmt.Errorf("HTTP status %d", status)
	case err != nil || a.Status != "success":
		return "", nil, errForeign
	case a.IsPartial:
		return "", nil, errors.New("the answer is partial: a part of the storage is away")
	}
	return a.Data.Type, a.Data.Result, nil
}

// sample is a Unix time in seconds and a value as text.
type sample [2]any

func numbers(samples []sample) ([]float64, error) {
	out := make([]float64, len(samples))
	for i, s := range samples {
		text, _ := s[1].(string) // "" for a native histogram
		var err error
		if out[i], err = strconv.ParseFloat(text, 64); err != nil {
			return nil, &RefusedError{"a series of its result is not a number"}
		}
	}
	return out, nil
}

// seconds writes a time as the API takes it.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// withoutURL drops the URL, which is long and repeats the query.
func withoutURL(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}
