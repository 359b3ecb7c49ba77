package parallel

import (
	"fmt"
	"sync/atomic"
	"testing"
)

func TestEach(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int32
	done := make([]bool, 20)
	err := Each(len(done), 3, func(i int) error {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		done[i] = true
		if i%10 == 3 {
			return fmt.Errorf("item %d", i)
		}
		return nil
	})
	if got, want := fmt.Sprint(err), "item 3\nitem 13"; got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
	for i, d := range done {
		if !d {
			t.Errorf("item %d: not called", i)
		}
	}
	if got := most.Load(); got > 3 {
		t.Errorf("got %d calls at a time, want at most 3", got)
	}
}
