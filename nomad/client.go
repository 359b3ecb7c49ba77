package nomad

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/nomad/api"
)

// NewClient makes a client of Nomad's API as api.NewClient does. Its requests
// follow the retry policy (docs/decisions/0004-retries.md): reads and plans are
// retried, and each request is retried once after a 403. The status text of a
// 403 is the request that was refused (see RefusedRequest). A client of its own
// has its own connections; those of a Dialer share them.
func NewClient(cfg *api.Config) (*api.Client, error) { return (&Dialer{}).newClient(cfg) }

// newClient is NewClient with the connections of the clients that reach the same
// address with the same certificates.
func (d *Dialer) newClient(cfg *api.Config) (*api.Client, error) {
	var err error
	if cfg.HttpClient, err = d.httpClient(cfg); err != nil {
		return nil, err
	}
	if strings.HasPrefix(cfg.Address, "unix:") {
		cfg.Address = "http://127.0.0.1"
	}
	return api.NewClient(cfg)
}

func (d *Dialer) httpClient(cfg *api.Config) (*http.Client, error) {
	key, err := json.Marshal([]any{cfg.Address, cfg.TLSConfig})
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.made[string(key)]; c != nil {
		return c, nil
	}
	to, err := url.Parse(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("invalid address %q: %w", cfg.Address, err)
	}
	tr := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // nothing of drover replaces it
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	tr.ForceAttemptHTTP2, tr.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	if to.Scheme == "unix" {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", to.EscapedPath())
		}
	}
	client := &http.Client{Transport: tr}
	if err := api.ConfigureTLS(client, cfg.TLSConfig); err != nil {
		return nil, err
	}
	long := tr.Clone()
	tr.MaxConnsPerHost, tr.MaxIdleConnsPerHost = maxConnections, 20
	client.Transport = retrier{annotator{connections{tr, long}}}
	if d.made == nil {
		d.made = map[string]*http.Client{}
	}
	d.made[string(key)] = client
	return client, nil
}

// maxConnections is the number of connections to one address for requests that are
// answered at once. Nomad closes those above 100 of one client
// (limits.http_max_conns_per_client); the others are for requests that wait.
const maxConnections = 64

// connections are those to a server: few for requests that are answered at once, and
// as many as are needed for those that wait, which would keep the others from one.
type connections struct{ short, long *http.Transport }

func (c connections) RoundTrip(req *http.Request) (*http.Response, error) {
	if waits(req) {
		return c.long.RoundTrip(req)
	}
	return c.short.RoundTrip(req)
}

// waits reports whether the answer to a request may take as long as it likes: a
// blocking query, or a stream.
func waits(req *http.Request) bool {
	path := req.URL.Path
	if path == "/v1/event/stream" || path == "/v1/agent/monitor" || strings.HasPrefix(path, "/v1/client/") {
		return true
	}
	if !strings.Contains(req.URL.RawQuery, "index=") {
		return false
	}
	index := req.URL.Query().Get("index")
	return index != "" && index != "0"
}

// annotator writes the request that was refused into the status of a 403. Nomad
// itself answers only "Permission denied"; api.Client keeps the status text in
// its error without showing it (api.UnexpectedResponseError.StatusText).
type annotator struct{ next connections }

func (t annotator) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusForbidden {
		res.Status = fmt.Sprintf("%d %s %s", res.StatusCode, req.Method, req.URL.RequestURI())
	}
	return res, err
}

// RefusedRequest returns the method and the URI of the request that a client of
// NewClient was refused with 403, as "GET /v1/jobs", "" if err is something else.
func RefusedRequest(err error) string {
	var answer api.UnexpectedResponseError
	if !errors.As(err, &answer) || answer.StatusCode() != http.StatusForbidden {
		return ""
	}
	return answer.StatusText()
}

// retrier retries requests that change nothing, and every request once that was
// refused.
type retrier struct{ next annotator }

// attempts that each request has, whatever the patience of its context.
const attempts = 4

func (r retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	plan := req.Method != http.MethodGet && strings.HasSuffix(req.URL.Path, "/plan")
	repeatable := req.Body == nil || req.GetBody != nil
	patience := patienceOf(req.Context())
	begun := time.Now()
	refused := false
	for n := 0; ; n++ {
		stop := patience.watch()
		res, err := r.next.RoundTrip(req)
		stop()
		away := unavailable(res, err, plan)
		last := n+1 >= attempts
		if last && away != nil && req.Context().Err() == nil && time.Since(begun) < patience.duration() {
			patience.report(away)
			last = false
		}
		switch {
		case !repeatable || last:
			return res, err
		case err == nil && res.StatusCode == http.StatusForbidden && !refused:
			// A server looks the token up before its state is read, waits for a
			// leader, and then refuses by what it saw first (rpc.go, acl.go in
			// Nomad 1.11). A refused write was not done, so it is retried too. The
			// second 403 is an answer.
			refused = true
		case req.Method != http.MethodGet && !plan:
			return res, err
		case !isTransient(res, err, plan) && (patience.duration() == 0 || away == nil):
			return res, err
		}
		if err == nil {
			_, _ = io.CopyN(io.Discard, res.Body, 4096)
			_ = res.Body.Close()
		}
		if RequestBackoff().Wait(req.Context(), n) != nil {
			return nil, req.Context().Err()
		}
		if req.GetBody != nil {
			req = req.Clone(req.Context()) // a request belongs to the transport once it was sent
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// CloseIdleConnections is what http.Client looks for.
func (r retrier) CloseIdleConnections() {
	r.next.next.short.CloseIdleConnections()
	r.next.next.long.CloseIdleConnections()
}

// isTransient reports whether the same request may get another answer in a
// moment. Nomad also answers 500 to the plan of an invalid job.
func isTransient(res *http.Response, err error, plan bool) bool {
	if err != nil {
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	switch res.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusInternalServerError:
		return !plan
	}
	return false
}

// unavailable returns the reason why a request has no answer yet, nil if it has
// one that a retry would not change, such as a wrong address or certificate.
func unavailable(res *http.Response, err error, plan bool) error {
	var timeout net.Error
	switch {
	case err == nil && isTransient(res, nil, plan):
		return fmt.Errorf("it answers %s", res.Status)
	case err == nil:
		return nil
	case isTransient(nil, err, plan), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	}
	return nil
}
