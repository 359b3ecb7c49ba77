// Package bench compares parts of drover with a floor: the same work by a
// program that does nothing else, in the same run on the same machine. Whole
// command lines are compared by the program in compare.
package bench

import (
	"fmt"
	"os"
	"testing"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

func TestMain(m *testing.M) {
	if address := os.Getenv(envBackend); address != "" {
		fmt.Fprintln(os.Stderr, runBackend(address))
		os.Exit(1)
	}
	devtest.Main(m)
}
