package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/release"
)

// terminalPerson answers the questions of verbs on a terminal.
type terminalPerson struct {
	io      *IO
	approve func(context.Context, release.Approval) (bool, error)
}

// person is nil where there is no terminal to ask on.
func (f *releaseFlags) person(streams *IO) deploy.Person {
	approve := asker(streams, f.format)
	if approve == nil {
		return nil
	}
	return terminalPerson{streams, approve}
}

func (p terminalPerson) Approve(ctx context.Context, a release.Approval) (bool, error) {
	return p.approve(ctx, a)
}

func (p terminalPerson) Prune(_ context.Context, jobs []release.Change) (bool, error) {
	err := confirm(p.io, false, "Stop "+count(len(jobs), "running job")+"?")
	var no errSilent
	if errors.As(err, &no) {
		return false, nil
	}
	return err == nil, err
}

// asker asks on a terminal whether a wave may begin; it is nil where nobody
// can be asked.
func asker(streams *IO, format string) func(context.Context, release.Approval) (bool, error) {
	if !streams.Ask || format == "json" {
		return nil
	}
	// Reading cannot be called back: when the approval comes from elsewhere, the
	// answer that is still being read is that of the next question.
	lines := make(chan string)
	var reading sync.Once
	return func(ctx context.Context, a release.Approval) (bool, error) {
		reading.Do(func() {
			go func() {
				defer close(lines)
				for in := bufio.NewScanner(streams.In); in.Scan(); {
					lines <- in.Text()
				}
			}()
		})
		fmt.Fprintf(streams.Err, "Begin wave %s of release %d with %s? [y/N] ", a.Wave, a.Number, strings.Join(a.Services, ", "))
		select {
		case answer, ok := <-lines:
			if !ok { // Ctrl-D
				fmt.Fprintln(streams.Err)
				return false, nil
			}
			answer = strings.ToLower(strings.TrimSpace(answer))
			return answer == "y" || answer == "yes", nil
		case <-ctx.Done():
			fmt.Fprintln(streams.Err)
			return false, ctx.Err()
		}
	}
}

func newApprove(streams *IO) *cobra.Command {
	return proceeding(streams, &cobra.Command{
		Use:   "approve STACK",
		Short: "Approve the wave of a release that waits for it, and go on",
		Long: `Approve the wave of a release that waits for it. A drover that waits, on a
terminal or with --approval-wait, goes on by itself; otherwise the release is
gone on with here, as 'drover resume' does. 'drover abort' goes back instead.`,
		Example: "  drover approve ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Approve{Recorded: r}).Run(ctx)
		return err
	})
}
