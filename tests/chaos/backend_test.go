package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// The services of the cheap stacks are this test binary.
const (
	envBackend = "DROVER_CHAOS_BACKEND" // HOST:PORT to listen on
	envStack   = "DROVER_CHAOS_STACK"   // marks the process
	envData    = "DROVER_CHAOS_DATA"    // directory for files
	envCrash   = "DROVER_CHAOS_CRASH"   // end with 3 after a moment
)

// runBackend is a service: it says its value, and keeps files.
func runBackend(address string) int {
	if os.Getenv(envCrash) != "" {
		time.Sleep(100 * time.Millisecond)
		return 3
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, os.Getenv("VALUE")) })
	mux.HandleFunc("PUT /file/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := keep(filepath.Join(os.Getenv(envData), filepath.Base(r.PathValue("name"))), r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInsufficientStorage)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	srv := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	answered := make(chan struct{}) // what had come, before this process ends
	context.AfterFunc(ctx, func() {
		defer close(answered)
		_ = srv.Shutdown(context.Background())
	})
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-answered
	return 0
}

// keep returns when the file will survive.
func keep(path string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it has its name, or is nobody's
	if _, err = io.Copy(f, r); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func checksum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
