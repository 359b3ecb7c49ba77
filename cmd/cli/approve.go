package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

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
	var cmd *cobra.Command
	cmd = goOn(streams, &cobra.Command{
		Use:   "approve STACK",
		Short: "Approve the wave of a release that waits for it, and go on",
		Long: `Approve the wave of a release that waits for it. A drover that waits, on a
terminal or with --approval-wait, goes on by itself; otherwise the release is
gone on with here, as 'drover resume' does. 'drover abort' goes back instead.`,
		Example: "  drover approve ocis -e prod",
	}, func(ctx context.Context, d *release.Deployer) (release.Result, error) {
		wave, holder, err := d.Allow(ctx, d.Holder.User+"@"+d.Holder.Host)
		if err != nil {
			return release.Result{}, err
		}
		if holder != nil {
			approved(streams, d, cmd.Flag("output").Value.String() == "json", wave, holder)
			return release.Result{}, errSilent{exitOK}
		}
		return d.Resume(ctx, false)
	})
	return cmd
}

// approved tells that somebody else, who waits, goes on.
func approved(streams *IO, d *release.Deployer, asJSON bool, wave string, holder *record.Holder) {
	name, env := d.Releases.Stack(), d.Releases.Environment()
	if !asJSON {
		fmt.Fprintf(streams.Out, "%s: wave %s is approved; %s goes on\n", name, wave, holder)
		return
	}
	newDeployView(streams, name, env, asJSON).json(map[string]any{
		"time": time.Now(), "event": "end", "stack": name, "environment": env,
		"outcome": "approved", "exit_code": exitOK, "wave": wave, "holder": holder,
	})
}
