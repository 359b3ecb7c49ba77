package edge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestScrape_RatesAndQueue(t *testing.T) {
	t.Parallel()
	text := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "u" || password != "p" || r.URL.Query().Get("scope") != "backend" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, text)
	}))
	t.Cleanup(srv.Close)
	address := strings.TrimPrefix(srv.URL, "http://")
	scrape := func(at int64, requests, canary, queue int) *Scrape {
		t.Helper()
		text = fmt.Sprintf("# HELP haproxy_backend_http_requests_total x\n# TYPE haproxy_backend_http_requests_total counter\n"+
			"haproxy_backend_http_requests_total{proxy=\"web\"} %d\nhaproxy_backend_http_requests_total{proxy=\"web.version.canary\"} %d\nhaproxy_backend_http_requests_total{proxy=\"webmail\"} 7\n"+
			"haproxy_backend_current_queue{proxy=\"web\"} %d\nhaproxy_process_nbproc 1\n", requests, canary, queue)
		s, err := ScrapeMetrics(t.Context(), srv.Client(), map[string]string{"a": address}, "u:p", time.Unix(at, 0))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := scrape(100, 1000, 10, 5)
	if got, err := first.Sum(MetricRequests, "web", nil); err == nil {
		t.Errorf("got %v from one read, want an error", got)
	}
	second := scrape(110, 1200, 30, 8)
	for _, test := range []struct {
		now, before *Scrape
		metric      Metric
		want        float64
	}{
		{second, first, MetricRequests, 22}, {second, first, MetricQueue, 8}, {scrape(120, 100, 30, 0), second, MetricRequests, 10},
	} {
		if got, err := test.now.Sum(test.metric, "web", test.before); err != nil || got != test.want {
			t.Errorf("%s: got %v, %v, want %v", test.metric, got, err, test.want)
		}
	}
	if got, err := second.Sum(MetricQueue, "none", first); err == nil {
		t.Errorf("got %v for a service that the edge does not have, want an error", got)
	}
	if _, err := ScrapeMetrics(t.Context(), srv.Client(), map[string]string{"a": address, "b": address}, "", time.Unix(1, 0)); err == nil {
		t.Error("got no error, want one: an instance that does not answer hides requests")
	}
	if _, err := ScrapeMetrics(t.Context(), srv.Client(), nil, "", time.Unix(1, 0)); err == nil {
		t.Error("got no error without an instance")
	}
}
