package rollout

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/drover-nomad/drover/stack"
)

// CheckResult is how a check of the stack went.
type CheckResult struct {
	Name     string        `json:"name"`
	URL      string        `json:"url"` // without a password
	OK       bool          `json:"ok"`
	Status   int           `json:"status,omitempty"` // 0 when there was no answer
	Expected []int         `json:"expected"`
	Problem  string        `json:"problem,omitempty"`
	Body     string        `json:"body,omitempty"` // its beginning, when the check failed
	Attempts int           `json:"attempts"`
	Elapsed  time.Duration `json:"elapsed_ns"`
}

// RunCheck makes the request of a check, again and again with growing pauses
// until it succeeds or retryFor has passed.
func RunCheck(ctx context.Context, c *stack.Check, retryFor time.Duration, redact func(string) string) CheckResult {
	started := time.Now()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.TLSSkipVerify {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // the stack asks for it
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: cmp.Or(c.Timeout, 10*time.Second)}
	const firstPause, longestPause = 250 * time.Millisecond, 5 * time.Second
	pause := firstPause
	for attempt := 1; ; attempt++ {
		r := runOnce(ctx, client, c)
		r.Attempts, r.Elapsed = attempt, time.Since(started)
		left := retryFor - r.Elapsed
		if r.OK || left <= 0 || ctx.Err() != nil {
			r.Problem, r.Body = redact(r.Problem), redact(r.Body)
			return r
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, longestPause)
	}
}

func runOnce(ctx context.Context, client *http.Client, c *stack.Check) CheckResult {
	r := CheckResult{Name: c.Name, Expected: c.Status}
	if len(r.Expected) == 0 {
		r.Expected = []int{http.StatusOK}
	}
	r.URL = shownURL(c.URL)
	req, err := http.NewRequestWithContext(ctx, cmp.Or(c.Method, http.MethodGet), c.URL, strings.NewReader(c.Body))
	if err != nil {
		r.Problem = "is not a request: " + withoutURL(err)
		return r
	}
	for k, v := range c.Headers {
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
			continue
		}
		req.Header.Set(k, v)
	}
	if c.Username != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	resp, err := client.Do(req)
	if err != nil {
		r.Problem = "no answer: " + withoutURL(err)
		return r
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	r.Status = resp.StatusCode
	const shown = 300
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		r.Problem = "the answer broke off: " + withoutURL(err)
		return r
	}
	switch {
	case !slices.Contains(r.Expected, resp.StatusCode):
		r.Problem = fmt.Sprintf("status %d, expected %s", resp.StatusCode, orList(r.Expected))
	case c.Contains != "" && !strings.Contains(string(body), c.Contains):
		r.Problem = fmt.Sprintf("status %d as expected, but the body does not contain %q", resp.StatusCode, c.Contains)
	default:
		r.OK = true
		return r
	}
	r.Body = strings.ToValidUTF8(string(body[:min(len(body), shown)]), "")
	return r
}

// shownURL is a URL without its password.
func shownURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "the URL"
	}
	return u.Redacted()
}

// withoutURL drops the URL, which the line has anyway and which may carry a
// password.
func withoutURL(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

func orList(codes []int) string {
	parts := make([]string, len(codes))
	for i, c := range codes {
		parts[i] = fmt.Sprint(c)
	}
	return strings.Join(parts, " or ")
}
