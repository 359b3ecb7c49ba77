package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"

	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// floorArg is the first argument of this program when it is a floor: a process of its
// own, so that its start and its memory count as those of drover do.
const floorArg = "-floor"

// floor runs a floor of processFloor.
func (b *bench) floor(ctx context.Context, kind string, args ...string) (usage, error) {
	self, err := os.Executable()
	if err != nil {
		return usage{}, err
	}
	return b.command(ctx, self, 0, append([]string{floorArg, kind}, args...)...)
}

// processFloor is the process that floor starts. It returns the exit code.
func processFloor(kind string, args ...string) int {
	err := fmt.Errorf("no floor %q", kind)
	switch kind {
	case "parse":
		err = parseFloor(args[0])
	case "register":
		err = registerFloor(context.Background(), args[0], args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// parseFloor evaluates the plain job specs in a directory and does nothing else.
func parseFloor(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.nomad.hcl"))
	if err != nil {
		return err
	}
	for _, f := range files {
		body, err := os.ReadFile(f) //nolint:gosec // a file that the benchmark wrote
		if err != nil {
			return err
		}
		if _, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: f, Body: body, AllowFS: true, Strict: true}); err != nil {
			return err
		}
	}
	return nil
}

// registerFloor registers the jobs of a stack in an environment, 16 at a time, and keeps
// them: what a deploy has in memory if it has nothing else.
func registerFloor(ctx context.Context, dir, environment string) error {
	s, err := stack.Load(ctx, stack.Options{Path: dir, Environment: environment})
	if err != nil {
		return err
	}
	list, err := render.Stack(ctx, s, render.Options{})
	if err != nil {
		return err
	}
	client, err := api.NewClient(&api.Config{
		Address: os.Getenv("NOMAD_ADDR"), HttpClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	})
	if err != nil {
		return err
	}
	return parallel(list, func(j render.Job) error {
		_, _, err := client.Jobs().Register(j.Job, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
}
