package acme_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme"
	"github.com/drover-nomad/drover/acme/acmetest"
)

// undecided is a CA that leaves an order as it is, as step-ca does after a
// check that failed: Pebble always decides.
type undecided struct {
	http.RoundTripper
	// answer is what the CA says instead of looking, when it is asked to check
	// a name; nil when it does look.
	answer map[string]any
	// challenge is what becomes of the challenges of a name, order of the order.
	challenge, order string
	after            string // Retry-After

	mu     sync.Mutex
	orders int
}

func (u *undecided) RoundTrip(req *http.Request) (*http.Response, error) {
	path := req.URL.Path
	u.mu.Lock()
	if strings.HasPrefix(path, "/order-plz") {
		u.orders++
	}
	first := u.orders <= 1
	u.mu.Unlock()
	if u.answer != nil && strings.HasPrefix(path, "/chalZ/") {
		text, err := json.Marshal(u.answer)
		return &http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(bytes.NewReader(text)),
		}, err
	}
	resp, err := u.RoundTripper.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	switch {
	case u.challenge != "" && first && strings.HasPrefix(path, "/authZ/"):
		return rewrite(resp, func(body map[string]any) {
			for _, c := range body["challenges"].([]any) {
				c.(map[string]any)["status"] = u.challenge
			}
		})
	case u.order != "" && (strings.HasPrefix(path, "/my-order/") || strings.HasPrefix(path, "/finalize-order/")):
		return rewrite(resp, func(body map[string]any) {
			if body["status"] == "valid" || body["status"] == "processing" {
				body["status"] = u.order
				resp.Header.Set("Retry-After", u.after)
			}
		})
	}
	return resp, nil
}

// rewrite changes an answer.
func rewrite(resp *http.Response, f func(map[string]any)) (*http.Response, error) {
	var body map[string]any
	err := json.NewDecoder(resp.Body).Decode(&body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	f(body)
	text, err := json.Marshal(body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, err
}

// TestUndecidedCA: the CA neither issues nor refuses. The attempt times out, is
// counted and reported, and the next one continues the order if possible.
func TestUndecidedCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	w.issue(t, w.manager(t), acme.Spec{Name: "account", Names: []string{"account.example.com"}})
	problem := map[string]string{"type": "urn:ietf:params:acme:error:connection", "detail": "the server could not connect to validation target"}
	for _, c := range []struct {
		name   string
		ca     *undecided
		kind   acme.Kind
		says   string
		orders int // until there is a certificate
	}{
		{"silent", &undecided{answer: map[string]any{"status": "pending"}}, acme.KindUnproven, "waiting for it to check: it has not finished its checks within 2s", 1},
		{"checks-again", &undecided{answer: map[string]any{"status": "processing", "error": problem}}, acme.KindUnproven, "it has not finished its checks within 2s", 1},
		{"not-connected", &undecided{answer: map[string]any{"status": "pending", "error": problem}}, acme.KindUnproven,
			"checking not-connected.example.com by http-01: the server could not connect to validation target (connection)", 1},
		{"wrong-answer", &undecided{answer: map[string]any{"status": "invalid", "error": problem}}, acme.KindUnproven,
			"checking wrong-answer.example.com by http-01: the server could not connect to validation target (connection)", 2},
		{"issuing", &undecided{order: "processing"}, acme.KindServer, "waiting for the certificate: it has not issued it within 2s", 1},
		{"issuing-tomorrow", &undecided{order: "processing", after: "86400"}, acme.KindServer, "waiting for the certificate: it has not issued it within 2s", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.ca.RoundTripper = w.https(t)
			clock := &clock{}
			ordered := 0
			world := func(cfg *acme.Config) {
				cfg.Clock = clock
				cfg.Events = func(e acme.Event) {
					if e.Kind == "ordered" {
						ordered++
					}
				}
			}
			slow := func(cfg *acme.Config) {
				world(cfg)
				cfg.Transport = c.ca
				cfg.SetOrderTimeout(2 * time.Second)
			}
			m := w.manager(t, slow)
			if _, err := m.Apply(t.Context(), acme.Spec{Name: c.name, Names: []string{c.name + ".example.com"}}); err != nil {
				t.Fatal(err)
			}
			// The second manager goes on where the first one has left it.
			for n := range 2 {
				if n == 1 && c.orders > 1 {
					break
				}
				r, err := w.manager(t, slow).Reconcile(t.Context(), c.name)
				var ie *acme.IssuerError
				if !errors.As(err, &ie) || ie.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("%+v", err)
				}
				st := r.Object.Status
				if st.Attempts != n+1 || st.LastError != err.Error() || (st.Pending == nil) != (c.orders > 1) {
					t.Errorf("status %+v", st)
				}
				clock.to(st.NextAttempt.Add(time.Second))
			}
			r, err := w.manager(t, world).Reconcile(t.Context(), c.name)
			if err != nil || !r.Issued {
				t.Fatalf("%+v, %v", r, err)
			}
			if ordered != c.orders {
				t.Errorf("%d orders instead of %d", ordered, c.orders)
			}
		})
	}
}

// TestUselessOrder: a manager died before it could write down that a check had
// failed, and the CA leaves the order pending.
func TestUselessOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	ca := &undecided{RoundTripper: w.https(t), answer: map[string]any{"status": "pending"}}
	m := w.manager(t, func(c *acme.Config) {
		c.Transport = ca
		c.SetOrderTimeout(300 * time.Millisecond)
	})
	if _, err := m.Apply(t.Context(), acme.Spec{Name: "a", Names: []string{"a.example.com"}}); err != nil {
		t.Fatal(err)
	}
	r, err := m.Reconcile(t.Context(), "a")
	if err == nil || r.Object.Status.Pending == nil {
		t.Fatal(r, err)
	}
	ca.answer, ca.challenge = nil, "invalid"
	w.clock.to(r.Object.Status.NextAttempt.Add(time.Second))
	if r, err = w.manager(t, func(c *acme.Config) { c.Transport = ca }).Reconcile(t.Context(), "a"); err != nil || !r.Issued {
		t.Fatal(fmt.Sprint(r), err)
	}
	if w.count("ordered") != 2 {
		t.Error(w.said())
	}
}

// refusing is a CA that refuses one kind of request.
type refusing struct {
	http.RoundTripper
	path    string // prefix
	status  int
	problem string // its type

	mu    sync.Mutex
	tried int
}

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" || !strings.HasPrefix(req.URL.Path, r.path) {
		return r.RoundTripper.RoundTrip(req)
	}
	r.tried++
	body := fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":"no such thing","status":%d}`, r.problem, r.status)
	return &http.Response{
		StatusCode: r.status, ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/problem+json"}}, Body: io.NopCloser(strings.NewReader(body)),
	}, nil
}

// TestOrder_EndsWhenRefused: a CA that refuses a request about an order is not asked
// for the same again. The next attempt, after the backoff, places a new order.
func TestOrder_EndsWhenRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, acmetest.Options{})
	w.issue(t, w.manager(t), acme.Spec{Name: "account", Names: []string{"account.example.com"}})
	for _, c := range []struct {
		path, problem string
		status        int
		ends          bool
	}{
		{"/authZ/", "malformed", http.StatusNotFound, true},
		{"/chalZ/", "malformed", http.StatusNotFound, true},
		{"/finalize-order/", "badCSR", http.StatusBadRequest, true},
		{"/my-order/", "unauthorized", http.StatusForbidden, true},
		{"/certZ/", "malformed", http.StatusNotFound, true},
		{"/chalZ/", "rateLimited", http.StatusTooManyRequests, false},
		{"/authZ/", "badNonce", http.StatusBadRequest, false},
		{"/finalize-order/", "serverInternal", http.StatusInternalServerError, false},
	} {
		t.Run(strings.Trim(c.path, "/")+" "+c.problem, func(t *testing.T) {
			t.Parallel()
			ca, clock, ordered := &refusing{RoundTripper: w.https(t), path: c.path, status: c.status, problem: c.problem}, &clock{}, 0
			m := w.manager(t, func(cfg *acme.Config) {
				cfg.Transport, cfg.Clock = ca, clock
				cfg.Events = func(e acme.Event) {
					if e.Kind == "ordered" {
						ordered++
					}
				}
			})
			name := strings.ToLower(strings.Trim(c.path, "/") + "-" + c.problem)
			if _, err := m.Apply(t.Context(), acme.Spec{Name: name, Names: []string{name + ".example.com"}}); err != nil {
				t.Fatal(err)
			}
			r, err := m.Reconcile(t.Context(), name)
			if err == nil || r.Issued || !strings.Contains(err.Error(), "no such thing") {
				t.Fatalf("got %+v, %v", r, err)
			}
			st := r.Object.Status
			if (st.Pending == nil) != c.ends || st.Attempts != 1 || c.ends && ca.tried != 1 {
				t.Errorf("the CA was asked %d times, %d attempts, order kept: %v", ca.tried, st.Attempts, st.Pending != nil)
			}
			ca.mu.Lock()
			ca.path = ""
			ca.mu.Unlock()
			clock.to(st.NextAttempt.Add(time.Second))
			want := 1
			if c.ends {
				want = 2
			}
			if r, err := m.Reconcile(t.Context(), name); err != nil || !r.Issued || ordered != want {
				t.Errorf("the next attempt: issued %v, %v, %d orders, want %d", r.Issued, err, ordered, want)
			}
		})
	}
}
