// Command server is the server of the conformance cases of the Compose specification.
// It has two end points more: /env returns a variable of its environment, and /write
// writes a file below /volumes. UDP_PORT replaces the port of UDP, as HTTP_PORT does that
// of HTTP. "server check URL" asks for a page and ends with 0 if it
// gets one.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

func main() {
	err := error(nil)
	if len(os.Args) > 2 && os.Args[1] == "check" {
		err = check(os.Args[2])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(page string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil) // #nosec G704 -- the command line says what to ask
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req) // #nosec G704 -- as above
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %s", page, resp.Status)
	}
	return nil
}

// state is what clients sent.
type state struct {
	sync.Mutex
	udp  string          // last value
	seen map[string]bool // of scalechecker
}

func run() error {
	s := &state{seen: map[string]bool{}}
	packets, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", ":"+cmp.Or(os.Getenv("UDP_PORT"), "10001"))
	if err != nil {
		return err
	}
	go s.receive(packets)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", ping)
	mux.HandleFunc("GET /volumefile", volumeFile)
	mux.HandleFunc("GET /udp", func(w http.ResponseWriter, _ *http.Request) {
		s.Lock()
		defer s.Unlock()
		answer(w, http.StatusOK, s.udp)
	})
	mux.HandleFunc("GET /scalechecker", s.scale)
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, os.Getenv(r.URL.Query().Get("name")))
	})
	mux.HandleFunc("GET /write", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if err := os.WriteFile(filepath.Join("/volumes", filepath.Base(q.Get("filename"))), []byte(q.Get("text")), 0o600); err != nil { // #nosec G703 -- its base name
			answer(w, http.StatusInternalServerError, err.Error())
			return
		}
		answer(w, http.StatusOK, "written")
	})
	server := &http.Server{Addr: ":" + cmp.Or(os.Getenv("HTTP_PORT"), "8080"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"response": text})
}

func ping(w http.ResponseWriter, r *http.Request) {
	address := r.URL.Query().Get("address")
	if address == "" {
		answer(w, http.StatusOK, "PONG FROM TARGET")
		return
	}
	patience := 8 * time.Second
	if d, err := time.ParseDuration(r.URL.Query().Get("timeout")); err == nil {
		patience = d
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil) // #nosec G704 -- this is its purpose
	if err != nil {
		answer(w, http.StatusBadRequest, "Could not reach address: "+address)
		return
	}
	resp, err := http.DefaultClient.Do(req) // #nosec G704 -- as above
	if err != nil {
		answer(w, http.StatusBadRequest, "Could not reach address: "+address)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		answer(w, http.StatusBadRequest, "Could not body from response: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write(body)
}

func volumeFile(w http.ResponseWriter, r *http.Request) {
	text, err := os.ReadFile(filepath.Join("/volumes", filepath.Base(r.URL.Query().Get("filename"))))
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusOK, string(text))
}

func (s *state) scale(w http.ResponseWriter, r *http.Request) {
	s.Lock()
	defer s.Unlock()
	if v := r.URL.Query().Get("value"); v != "" {
		s.seen[v] = true
	}
	answer(w, http.StatusOK, strconv.Itoa(len(s.seen)))
}

// receive keeps the value of each datagram.
func (s *state) receive(packets net.PacketConn) {
	buf := make([]byte, 1024)
	for {
		n, _, err := packets.ReadFrom(buf)
		if err != nil {
			return
		}
		var m map[string]string
		if json.Unmarshal(buf[:n], &m) != nil {
			os.Exit(0)
		}
		s.Lock()
		s.udp = m["request"]
		s.Unlock()
	}
}
