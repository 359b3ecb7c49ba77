package cli

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// syncBuffer is a buffer that several goroutines may use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestOpen starts drover open with a browser that is a script: it gets the path of a file
// that no other user can read, and no URL. Then the page of the stack is reached by the URL
// in the file, and Ctrl-C ends the command.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	devtest.Script(t, filepath.Join(dir, "xdg-open"), "#!/bin/sh\nstat -c %a \"$1\" >"+dir+"/mode\ncat \"$1\" >"+dir+"/page.new\nmv "+dir+"/page.new "+dir+"/page\n")
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("NOMAD_ADDR", "http://127.0.0.1:1") // no server; the page says so
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs syncBuffer
	code := make(chan int, 1)
	go func() {
		code <- Run(ctx, &IO{In: strings.NewReader(""), Out: &out, Err: &errs}, []string{"open", "shop", "-e", "prod"})
	}()
	var page []byte
	devtest.Until(t, time.Minute, "the browser to be opened", func() bool {
		var err error
		page, err = os.ReadFile(filepath.Join(dir, "page"))
		return err == nil
	})
	if mode, err := os.ReadFile(filepath.Join(dir, "mode")); err != nil || strings.TrimSpace(string(mode)) != "600" {
		t.Errorf("got mode %s of the file, want 600 (%v)", mode, err)
	}
	url := strings.TrimSpace(out.String())
	if !strings.Contains(url, "&next=%2Fs%2Fshop%2Fprod") && !strings.Contains(url, "next=%2Fs%2Fshop%2Fprod&") {
		t.Errorf("got URL %q, want one that leads to the stack", url)
	}
	if escaped := strings.ReplaceAll(url, "&", "&amp;"); !strings.Contains(string(page), escaped) {
		t.Errorf("got page %s, want one that leads to %s", page, url)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		t.Errorf("got %s and %d cookies, want a session", res.Status, len(res.Cookies()))
	}
	devtest.Until(t, time.Minute, "the next URL", func() bool { return strings.Contains(errs.String(), "Another browser: http://127.0.0.1:") })
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("after Ctrl-C: got exit code %d, want 0\n%s", got, errs.String())
	}
}
