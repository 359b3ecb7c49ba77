package schedule

import (
	"testing"
	"time"

	"github.com/drover-nomad/drover/stack"
)

func TestWindow(t *testing.T) {
	t.Parallel()
	if got := Window(&stack.Schedule{WindowFrom: 23 * time.Hour, WindowFor: 3 * time.Hour}); got != "23:00-02:00" {
		t.Errorf("the window reads %s", got)
	}
	if got := Window(&stack.Schedule{}); got != "" {
		t.Errorf("no window reads %s", got)
	}
}
