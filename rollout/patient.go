package rollout

import (
	"cmp"
	"context"
	"crypto/tls"
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

	"github.com/drover-nomad/drover/nomad"
)

// NewNomad makes a client of Nomad's API as api.NewClient does, which asks
// again what only reads and what a server without a leader, or a proxy before
// it, could not answer; and once what was refused, for a server that starts
// knows no token. Its errors know what was refused.
func NewNomad(cfg *api.Config) (*api.Client, error) {
	to, err := url.Parse(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("invalid address %q: %w", cfg.Address, err)
	}
	tr := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // nothing of drover replaces it
	tr.MaxIdleConnsPerHost = 20
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	tr.ForceAttemptHTTP2, tr.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	if to.Scheme == "unix" {
		cfg.Address = "http://127.0.0.1"
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", to.EscapedPath())
		}
	}
	client := &http.Client{Transport: tr}
	if err := api.ConfigureTLS(client, cfg.TLSConfig); err != nil {
		return nil, err
	}
	client.Transport = patient{telling{tr}}
	cfg.HttpClient = client
	return api.NewClient(cfg)
}

// patient asks again what changes nothing, and what was refused.
type patient struct{ next telling }

// patience are the pauses between the attempts.
var patience = [...]time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond}

func (p patient) RoundTrip(req *http.Request) (*http.Response, error) {
	plan := req.Method != http.MethodGet && strings.HasSuffix(req.URL.Path, "/plan")
	repeatable := req.Body == nil || req.GetBody != nil
	w := waitingOf(req.Context())
	begun := time.Now()
	refused := false
	for n := 0; ; n++ {
		res, err := w.roundTrip(p.next, req)
		last := n >= len(patience) // the attempts that every request has
		if away := unavailable(res, err, plan); last && w != nil && away != nil && req.Context().Err() == nil && time.Since(begun) < w.silence {
			w.say(away)
			last = false
		}
		switch {
		case !repeatable || last:
			return res, err
		case err == nil && res.StatusCode == http.StatusForbidden && !refused:
			// A server looks the token up before its state is read, waits for a
			// leader, and then refuses by what it saw first (rpc.go, acl.go in
			// Nomad 1.11). What is refused is not done, so that writes ask
			// again, too; the second time it is an answer.
			refused = true
		case req.Method != http.MethodGet && !plan:
			return res, err
		case !again(res, err, plan) && (w == nil || unavailable(res, err, plan) == nil):
			return res, err
		}
		if err == nil {
			_, _ = io.CopyN(io.Discard, res.Body, 4096)
			_ = res.Body.Close()
		}
		timer := time.NewTimer(pause(n))
		select {
		case <-timer.C:
		case <-req.Context().Done():
			timer.Stop()
			return nil, req.Context().Err()
		}
		if req.GetBody != nil {
			req = req.Clone(req.Context()) // a request is the transport's once it was sent
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// again says that the same request may get another answer in a moment. A plan
// gets 500 for what is wrong with its job, too.
func again(res *http.Response, err error, plan bool) bool {
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

// Persist asks again while the cluster does not answer, until that has gone on
// for silence (DefaultSilence when 0). A token that is refused is an answer. 500
// is none: it may tell of a mistake, but what is asked here was right before.
//
// ask is repeated as a whole, so that what it looked at before is looked at again:
// its requests do not wait themselves (see Patiently).
func Persist(ctx context.Context, silence time.Duration, ask func(context.Context) error) error {
	begun := time.Now()
	w := waitingOf(ctx)
	ctx = Promptly(ctx)
	for {
		// A server that stands still accepts a request and never answers it; a
		// blocking query is answered within 64 s.
		actx, cancel := context.WithTimeoutCause(ctx, 90*time.Second, errors.New("no answer within 90 seconds"))
		err := ask(actx)
		cancel()
		if !Unanswered(err) && !nomad.IsInternal(err) || refused(err) || time.Since(begun) >= cmp.Or(silence, DefaultSilence) {
			return err
		}
		if w != nil {
			w.say(err)
		}
		timer := time.NewTimer(500 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// CloseIdleConnections is what http.Client looks for.
func (p patient) CloseIdleConnections() { p.next.next.CloseIdleConnections() }
