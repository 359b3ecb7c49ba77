package security

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// testScaled stops most instances of a service, at once and before Consul knows
// it, while clients ask for something that is safe to repeat.
func testScaled(t *testing.T, w *world) {
	services := map[string][]*httptest.Server{"scaled3": make([]*httptest.Server, 3), "scaled8": make([]*httptest.Server, 8)}
	for name, instances := range services {
		for i := range instances {
			instances[i] = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer instances[i].Close()
			w.register(t, name, instances[i].Listener.Addr().String(), "drover.route="+name+".test/")
		}
	}
	w.loaded(t, "scaled3.test", "scaled8.test")
	for name, instances := range services {
		count := len(instances)
		stop := make(chan struct{})
		lost := make([]map[string]int, 8)
		total := make([]int, len(lost))
		var wait sync.WaitGroup
		for i := range lost {
			lost[i] = map[string]int{}
			wait.Add(1)
			go func() {
				defer wait.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					total[i]++
					// An address each, because of the limit of requests.
					r, err := w.send(fmt.Sprint("127.0.0.", 80+i), "GET / HTTP/1.1\r\nHost: "+name+".test\r\nConnection: close\r\n\r\n")
					switch {
					case err != nil:
						lost[i][err.Error()]++
					case r.StatusCode != http.StatusOK:
						lost[i][r.Status]++
					}
				}
			}()
		}
		wave := func(d time.Duration) {
			select {
			case <-t.Context().Done():
			case <-time.After(d):
			}
		}
		wave(200 * time.Millisecond)
		for _, s := range instances[1:] {
			s.CloseClientConnections()
			_ = s.Listener.Close()
		}
		wave(time.Second)
		for _, s := range instances[1:] {
			_ = w.consul.Agent().ServiceDeregister(name + "-" + s.Listener.Addr().String())
		}
		wave(2 * time.Second)
		close(stop)
		wait.Wait()
		requests := 0
		for i, l := range lost {
			requests += total[i]
			if len(l) > 0 {
				t.Errorf("%d to 1 instances: a client lost %v of %d GETs", count, l, total[i])
			}
		}
		t.Logf("%d to 1 instances: %d GETs", count, requests)
	}
}
