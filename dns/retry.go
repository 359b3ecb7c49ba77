package dns

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Clock is time as this package sees it.
type Clock interface {
	Now() time.Time
	// Sleep returns early, with the context's error, when ctx ends.
	Sleep(ctx context.Context, d time.Duration) error
}

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

const (
	attempts   = 5
	firstPause = 250 * time.Millisecond
	maxPause   = 8 * time.Second
)

// apiClient sends requests to a provider's API. It retries requests that the API did not
// process (429, and 5xx for requests that may be repeated), after as long as Retry-After
// says. It does not begin a pause that ends after the context's deadline.
type apiClient struct {
	provider string
	http     *http.Client
	clock    Clock
	secret   secret
	// refuses, if not 0, is a status of 500 or more by which the API refuses a POST
	// that it understood.
	refuses int
}

// Do sends one request. Answers that mean the same for every API (bad
// credentials, overload) come back as *Error.
func (c *apiClient) Do(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	for n := 1; ; n++ {
		if n > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		resp, err := c.http.Do(req)
		var (
			pause   time.Duration
			problem error
		)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return nil, &Error{Provider: c.provider, Kind: KindUnavailable, Msg: "no answer from " + req.URL.Host + " in time", Err: ctx.Err()}
			}
			problem = &Error{Provider: c.provider, Kind: KindUnavailable, Msg: "cannot be asked", Err: err}
		case resp.StatusCode == c.refuses && req.Method == http.MethodPost:
			return resp, nil
		case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
			text := c.drain(resp)
			return nil, &Error{Provider: c.provider, Kind: KindDenied, Msg: fmt.Sprintf("%s does not accept the credential (%s)%s", req.URL.Host, resp.Status, text)}
		case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
			pause = retryAfter(resp.Header.Get("Retry-After"), c.clock.Now())
			problem = &Error{Provider: c.provider, Kind: KindUnavailable, Msg: fmt.Sprintf("%s answered %s%s", req.URL.Host, resp.Status, c.drain(resp))}
			if resp.StatusCode != http.StatusTooManyRequests && req.Method == http.MethodPost {
				return nil, problem // it may have been done
			}
		default:
			return resp, nil
		}
		if err != nil && req.Method == http.MethodPost || n == attempts {
			return nil, problem
		}
		if pause == 0 {
			pause = min(firstPause<<(n-1), maxPause)
			pause += rand.N(pause / 4) // #nosec G404 -- spreads load, hides nothing
		}
		if deadline, ok := ctx.Deadline(); ok && c.clock.Now().Add(pause).After(deadline) {
			return nil, problem
		}
		if c.clock.Sleep(ctx, pause) != nil {
			return nil, problem
		}
	}
}

// drain reads what an answer says, for a message.
func (c *apiClient) drain(resp *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	_ = resp.Body.Close()
	return c.said(b)
}

func (c *apiClient) said(b []byte) string {
	if text := firstLine(c.secret.redact(string(b))); text != "" {
		return ": " + text
	}
	return ""
}

// retryAfter reads the header: seconds, or a date. 0 if there is none.
func retryAfter(h string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
