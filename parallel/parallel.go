// Package parallel calls a function for many items, a few at a time.
package parallel

import (
	"errors"
	"sync"
)

// Do calls f for 0 … n-1, at most limit at a time, and returns when all calls
// have returned. limit must be at least 1 unless n is 0.
func Do(n, limit int, f func(int)) {
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// Each is Do for a function that can fail: it joins the errors in the order of
// the arguments. A failed call does not stop the others.
func Each(n, limit int, f func(int) error) error {
	errs := make([]error, n)
	Do(n, limit, func(i int) { errs[i] = f(i) })
	return errors.Join(errs...)
}
