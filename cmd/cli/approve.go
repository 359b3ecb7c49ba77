package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/release"
)

// terminalPerson answers the questions of verbs on a terminal.
type terminalPerson struct {
	io      *IO
	approve func(context.Context, release.Approval) (bool, error)
}

// person returns nil if there is no terminal.
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

func (p terminalPerson) AcceptTerms(_ context.Context, issuer, url string) (string, error) {
	return askTerms(p.io, issuer, url), nil
}

// askTerms asks on a terminal whether the terms of service of a CA are accepted, and
// returns USER@HOST, or "" if not.
func askTerms(streams *IO, issuer, url string) string {
	fmt.Fprintf(streams.Err, "The terms of service of issuer %s are at %s\nDo you accept them? [y/N] ", issuer, url)
	answer, _ := bufio.NewReader(streams.In).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		self := record.Self("", os.Getenv)
		return self.User + "@" + self.Host + " on a terminal"
	}
	return ""
}

// asker returns a function that asks on a terminal whether a wave may begin, and
// nil if there is no terminal.
func asker(streams *IO, format string) func(context.Context, release.Approval) (bool, error) {
	if !streams.Ask || format == "json" {
		return nil
	}
	// A blocked read of stdin cannot be cancelled: if the approval comes from
	// elsewhere, the pending read gets the answer to the next question.
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
		question := fmt.Sprintf("Begin wave %s of release %d with %s?", a.Wave, a.Number, strings.Join(a.Services, ", "))
		if a.Inconclusive != "" {
			question = fmt.Sprintf("Continue release %d although the gate of wave %s is inconclusive?", a.Number, a.Wave)
		}
		fmt.Fprint(streams.Err, question+" [y/N] ")
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

func newApprove(streams *IO, f *factory) *cobra.Command {
	return proceeding(streams, f, &cobra.Command{
		Use:   "approve STACK",
		Short: "Approve the wave that a release waits for, and continue",
		Long: `Approve the wave that a release waits for: one that has not begun yet, or one
whose gate is inconclusive because a metric has no value. If a drover process waits for the
approval, on a terminal or with --approval-wait, that process continues the
release. Otherwise this command continues it as 'drover resume' does. To revert
the release instead, run 'drover abort'.

It needs a token that may deploy the stack. The exit code tells the outcome: see
'drover help exit-codes'.`,
		Example: "  drover approve ocis -e prod",
	}, func(ctx context.Context, r deploy.Recorded) error {
		_, err := (&deploy.Approve{Recorded: r}).Run(ctx)
		return err
	})
}
