package cli

import (
	"context"

	"github.com/hashicorp/nomad/api"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/record"
)

func scriptNomad(ts *testscript.TestScript) *api.Client {
	cfg := api.DefaultConfig()
	cfg.Address = ts.Getenv("NOMAD_ADDR")
	c, err := api.NewClient(cfg)
	ts.Check(err)
	return c
}

// forgetRecord deletes the releases of a stack, whose jobs keep running:
// forget STACK ENV.
func forgetRecord(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: forget STACK ENV")
	}
	ts.Check(record.OpenReleases(scriptNomad(ts), args[0], args[1]).Purge(context.Background()))
}

// changeByHand registers a job with another value in the environment of its
// tasks, as an operator does without drover: byhand JOB NAME VALUE; or purges one: byhand purge JOB.
func changeByHand(ts *testscript.TestScript, neg bool, args []string) {
	if !neg && len(args) == 2 && args[0] == "purge" {
		_, _, err := scriptNomad(ts).Jobs().Deregister(args[1], true, nil)
		ts.Check(err)
		return
	}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: byhand JOB NAME VALUE, byhand purge JOB")
	}
	c := scriptNomad(ts)
	job, _, err := c.Jobs().Info(args[0], nil)
	ts.Check(err)
	for _, g := range job.TaskGroups {
		for _, t := range g.Tasks {
			t.Env[args[1]] = args[2]
		}
	}
	_, _, err = c.Jobs().Register(job, nil)
	ts.Check(err)
}
