package ui

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// maxStreams is the number of open streams of all pages.
const maxStreams = 256

// writeTime is how long a browser may take to receive one version of a page.
const writeTime = 15 * time.Second

// aliveTime is the time between two comments in a stream in which nothing changes.
const aliveTime = 15 * time.Second

// hub keeps open pages up to date. All browsers that show the same page share one topic,
// which renders it once for each interval and ends with its last browser.
type hub struct {
	base context.Context
	workers

	mu      sync.Mutex
	streams int
	topics  map[string]*topic
}

type topic struct {
	cancel  context.CancelFunc
	last    []byte
	clients map[chan []byte]bool
}

// join returns a channel with the versions of a page: the present one if it is known,
// and each that differs from the one before. A slow reader misses versions but not the
// last one. It reports false if there are too many streams. leave ends it.
func (h *hub) join(name string, every time.Duration, render func(context.Context) []byte) (versions <-chan []byte, leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams >= maxStreams || h.base.Err() != nil {
		return nil, nil, false
	}
	h.streams++
	t := h.topics[name]
	if t == nil {
		ctx, cancel := context.WithCancel(h.base)
		t = &topic{cancel: cancel, clients: map[chan []byte]bool{}}
		h.topics[name] = t
		h.wg.Go(func() { h.watch(ctx, t, every, render) })
	}
	c := make(chan []byte, 1)
	if t.last != nil {
		c <- t.last
	}
	t.clients[c] = true
	return c, func() { h.leave(name, t, c) }, true
}

// end waits for the topics after base has ended.
func (h *hub) end() {
	h.mu.Lock()   // a join that has seen base alive is over
	h.mu.Unlock() //nolint:staticcheck // see above
	h.wait()
}

func (h *hub) leave(name string, t *topic, c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams--
	delete(t.clients, c)
	if len(t.clients) == 0 {
		t.cancel()
		delete(h.topics, name)
	}
}

func (h *hub) watch(ctx context.Context, t *topic, every time.Duration, render func(context.Context) []byte) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if now := render(ctx); ctx.Err() == nil {
			h.publish(t, now)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (h *hub) publish(t *topic, now []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if bytes.Equal(now, t.last) {
		return
	}
	t.last = now
	for c := range t.clients {
		select {
		case <-c: // a version that its reader has not taken
		default:
		}
		c <- now
	}
}

// serveLive sends the versions of a page as server-sent events until the browser leaves.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request, build builder) {
	name := r.URL.RequestURI()
	versions, leave, ok := s.hub.join(name, s.opts.Interval, func(ctx context.Context) []byte {
		ctx, cancel := context.WithTimeout(ctx, readTime)
		defer cancel()
		return s.fragment(s.build(ctx, r, build))
	})
	if !ok {
		http.Error(w, "too many open pages", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	alive := time.NewTicker(aliveTime)
	defer alive.Stop()
	send := func(text []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTime)) // not every writer has one
		if _, err := w.Write(text); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	if !send([]byte(": open\n\n")) {
		return
	}
	for {
		select {
		case html := <-versions:
			if !send(event(html)) {
				return
			}
		case <-alive.C:
			if !send([]byte(": alive\n\n")) {
				return
			}
		case <-r.Context().Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// event returns the text of a server-sent event.
func event(html []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(html) {
		fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	b.WriteByte('\n')
	return b.Bytes()
}
