package devtest

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

func TestLine_OneAtATime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	leave, err := line(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := line(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one got %v, want to wait until its context ends", err)
	}
	leave()
	leave, err = line(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

func TestMeanRunnable(t *testing.T) {
	t.Parallel()
	mean, err := meanRunnable(t.Context())
	if err != nil || mean < 0 {
		t.Errorf("got %f and %v", mean, err)
	}
}
