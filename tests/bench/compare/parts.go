package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

// rendered writes what a stack renders to as plain job specs, and returns
// the files in dependency order.
func rendered(ctx context.Context, dir, to string) ([]string, []render.Job, error) {
	s, err := stack.Load(ctx, stack.Options{Path: dir})
	if err != nil {
		return nil, nil, err
	}
	list, err := render.Stack(ctx, s, render.Options{})
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return nil, nil, err
	}
	var files []string
	for _, j := range list {
		f := filepath.Join(to, j.Service+".nomad.hcl")
		if err := os.WriteFile(f, j.HCL, 0o600); err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	return files, list, nil
}

// growth renders and plans stacks of growing size, which are not deployed.
func growth(ctx context.Context, b *bench) (table, error) {
	t := table{title: fmt.Sprintf("Render and plan, %d services, nothing deployed", b.plan)}
	times := plot{file: "growth-time.svg", title: "Seconds by number of services", unit: "s"}
	memory := plot{file: "growth-memory.svg", title: "Peak memory by number of services, MB", unit: "MB"}
	var lines [5]line
	for i, name := range []string{"drover render", "drover plan", "jobspec2, nothing else", "plan requests, nothing else", "nomad job plan, one after the other"} {
		lines[i].name = name
	}
	mem := [3]line{{name: "drover render"}, {name: "drover plan"}, {name: "jobspec2, nothing else"}}
	for _, n := range sizes(b.plan) {
		dir := filepath.Join(b.temp, fmt.Sprintf("grow%d", n))
		if err := largeStack(dir, n); err != nil {
			return t, err
		}
		plain := dir + "-plain"
		files, list, err := rendered(ctx, dir, plain)
		if err != nil {
			return t, err
		}
		var u [5]usage
		if u[0], err = b.drover(ctx, "render", dir, "--out", dir+"-out"); err != nil {
			return t, err
		}
		if u[1], err = b.counted(func(b *bench) (usage, error) { return b.drover(ctx, "plan", dir) }); err != nil {
			return t, err
		}
		if u[2], err = b.floor(ctx, "parse", plain); err != nil {
			return t, err
		}
		if u[3], err = b.counted(func(b *bench) (usage, error) { return b.planFloor(ctx, list) }); err != nil {
			return t, err
		}
		for _, f := range files {
			// Exit code 1: there would be changes.
			one, err := b.nomad(ctx, 1, "job", "plan", f)
			if err != nil {
				return t, err
			}
			u[4].add(one)
		}
		for i := range lines {
			lines[i].points = append(lines[i].points, point{float64(n), u[i].elapsed.Seconds()})
		}
		for i := range mem {
			mem[i].points = append(mem[i].points, point{float64(n), float64(u[i].peak) / 1e6})
		}
		if n == b.plan {
			t.rows = []row{
				{"drover render", u[0], "", 0},
				{"jobspec2 on the merged files, nothing else", u[2], "floor: no merging, no output, one job in memory", 0},
				{"drover plan", u[1], "", 3},
				{"the plan requests, nothing else, 16 at a time", u[3], "floor: jobs rendered before", 3},
				{"nomad job plan in a loop", u[4], "on specs that drover rendered", 3},
			}
			t.rows[1].base, t.rows[3].base = 1, 3
			t.rows[0].base, t.rows[2].base, t.rows[4].base = 1, 3, 3
		}
	}
	times.lines, memory.lines = lines[:], mem[:]
	b.plots = append(b.plots, times, memory)
	return t, nil
}

// sizes are the steps from 10 to n, about three per decade.
func sizes(n int) []int {
	var list []int
	for _, s := range []int{10, 30, 100, 300, 1000, 3000} {
		if s < n {
			list = append(list, s)
		}
	}
	return append(list, n)
}

// planFloor asks for the plan of each job and does nothing else.
func (b *bench) planFloor(ctx context.Context, list []render.Job) (usage, error) {
	client, err := api.NewClient(&api.Config{Address: b.get("NOMAD_ADDR")})
	if err != nil {
		return usage{}, err
	}
	began := time.Now()
	err = parallel(list, func(j render.Job) error {
		_, _, err := client.Jobs().Plan(j.Job, true, (&api.WriteOptions{}).WithContext(ctx))
		return err
	})
	return usage{elapsed: time.Since(began)}, err
}

// parallel runs do for all jobs, 16 at a time, which is what drover does.
func parallel(list []render.Job, do func(render.Job) error) error {
	errs := make([]error, len(list))
	places := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i, j := range list {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			errs[i] = do(j)
		})
	}
	wg.Wait()
	i := slices.IndexFunc(errs, func(e error) bool { return e != nil })
	if i < 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", list[i].Service, errs[i])
}

// deployMany brings up a deep stack of cheap jobs from nothing.
func deployMany(ctx context.Context, b *bench) (table, error) {
	t := table{title: fmt.Sprintf("Deploy %d services, five deep, from nothing until all are healthy", b.deploy)}
	rows, err := b.fromNothing(ctx, "many", b.deploy, false)
	t.rows = rows
	return t, err
}

// deploySerially is deployMany with few services and also with what takes
// too long for many.
func deploySerially(ctx context.Context, b *bench) (table, error) {
	t := table{title: fmt.Sprintf("Deploy %d services, five deep, from nothing until all are healthy", b.serial)}
	rows, err := b.fromNothing(ctx, "few", b.serial, true)
	t.rows = rows
	return t, err
}

func (b *bench) fromNothing(ctx context.Context, name string, n int, serial bool) ([]row, error) {
	dir := filepath.Join(b.temp, name)
	if err := cheapStack(dir, name, n, true); err != nil {
		return nil, err
	}
	files, list, err := rendered(ctx, dir, dir+"-plain")
	if err != nil {
		return nil, err
	}
	f, err := newFloor(b, list)
	if err != nil {
		return nil, err
	}
	gone := func() error { return f.purge(ctx) }
	ours, err := b.counted(func(b *bench) (usage, error) { return b.drover(ctx, "deploy", dir, "--parallel", "64") })
	if err != nil {
		return nil, err
	}
	if _, err := b.drover(ctx, "destroy", dir, "-y"); err != nil {
		return nil, err
	}
	floor, err := b.counted(func(b *bench) (usage, error) { return b.deployFloor(ctx, list) })
	if err != nil {
		return nil, err
	}
	if err := gone(); err != nil {
		return nil, err
	}
	began := time.Now()
	detached, err := b.counted(func(b *bench) (usage, error) { return b.runDetached(ctx, files) })
	if err != nil {
		return nil, err
	}
	if err := f.healthy(ctx); err != nil {
		return nil, err
	}
	waited := detached
	waited.elapsed = time.Since(began)
	if err := gone(); err != nil {
		return nil, err
	}
	rows := []row{
		{"drover deploy --parallel 64", ours, "", 0},
		{"the same order and gates, nothing else", floor, "floor: no plan, no record, no report", 0},
		{"nomad job run -detach in a loop", detached, "no order, and nothing is known of how it ended", 0},
		{"the same, until all happen to be healthy", waited, "no order: works only because these jobs need none", 0},
	}
	if serial {
		attached, err := b.counted(func(b *bench) (usage, error) {
			var sum usage
			for _, file := range files {
				one, err := b.nomad(ctx, 0, "job", "run", file)
				if err != nil {
					return sum, err
				}
				sum.add(one)
			}
			return sum, nil
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, row{"nomad job run in a loop, in order", attached, "waits for each, whether another needs it or not", 0})
		if err := gone(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// redeploy runs deploy again when nothing, and when one service, has changed.
func redeploy(ctx context.Context, b *bench) (table, error) {
	t := table{title: fmt.Sprintf("Deploy %d services that run already", b.deploy)}
	dir := filepath.Join(b.temp, "many")
	if _, err := os.Stat(dir); err != nil { // deployMany was not measured
		if err := cheapStack(dir, "many", b.deploy, true); err != nil {
			return t, err
		}
	}
	if _, err := b.drover(ctx, "deploy", dir, "--parallel", "64"); err != nil {
		return t, err
	}
	files, list, err := rendered(ctx, dir, dir+"-plain")
	if err != nil {
		return t, err
	}
	deploy := func(b *bench) (usage, error) { return b.drover(ctx, "deploy", dir) }
	unchanged, err := b.counted(deploy)
	if err != nil {
		return t, err
	}
	plan, err := b.counted(func(b *bench) (usage, error) { return b.drover(ctx, "plan", dir) })
	if err != nil {
		return t, err
	}
	status, err := b.counted(func(b *bench) (usage, error) { return b.drover(ctx, "status", dir) })
	if err != nil {
		return t, err
	}
	floor, err := b.counted(func(b *bench) (usage, error) { return b.planFloor(ctx, list) })
	if err != nil {
		return t, err
	}
	plans, err := b.counted(func(b *bench) (usage, error) {
		var sum usage
		for _, file := range files {
			one, err := b.nomad(ctx, 1, "job", "plan", file)
			if err != nil {
				return sum, err
			}
			sum.add(one)
		}
		return sum, nil
	})
	if err != nil {
		return t, err
	}
	// Before the loop below, whose deployments take their time to end.
	file := filepath.Join(dir, list[len(list)/2].Service+".nomad.hcl")
	text, err := os.ReadFile(file)
	if err != nil {
		return t, err
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("24h"), []byte("25h"), 1), 0o600); err != nil { //nolint:gosec // of the directory of this run
		return t, err
	}
	changed, err := b.counted(deploy)
	if err != nil {
		return t, err
	}
	runs, err := b.counted(func(b *bench) (usage, error) { return b.runDetached(ctx, files) })
	if err != nil {
		return t, err
	}
	t.rows = []row{
		{"drover deploy, nothing changed", unchanged, "", 0},
		{"the plan requests, nothing else, 16 at a time", floor, "floor", 0},
		{"drover plan, nothing changed", plan, "", 1},
		{"drover status", status, "", 0},
		{"drover deploy, one service changed", changed, "", 0},
		{"nomad job plan in a loop", plans, "says what would change, changes nothing", 0},
		{"nomad job run -detach in a loop", runs, "", 0},
	}
	_, err = b.drover(ctx, "destroy", dir, "-y")
	return t, err
}

// deployOCIS brings up the whole of oCIS from nothing.
func deployOCIS(ctx context.Context, b *bench) (table, error) {
	if !b.ocis {
		return table{}, nil
	}
	t := table{title: "Deploy oCIS from nothing until all is healthy and passing"}
	list, err := b.ocisJobs(ctx)
	if err != nil {
		return t, err
	}
	deploy := func(b *bench) (usage, error) {
		return b.drover(ctx, "deploy", "ocis", "-e", "dev", "--no-certificates")
	}
	// The floor does not make secrets: the first, unmeasured deploy does, and
	// it warms the caches of the file system for both.
	if _, err := deploy(b); err != nil {
		return t, err
	}
	if _, err := b.drover(ctx, "destroy", "ocis", "-e", "dev", "-y"); err != nil {
		return t, err
	}
	floor, err := b.counted(func(b *bench) (usage, error) { return b.deployFloor(ctx, list) })
	if err != nil {
		return t, err
	}
	f, err := newFloor(b, list)
	if err != nil {
		return t, err
	}
	if err := f.purge(ctx); err != nil {
		return t, err
	}
	ours, err := b.counted(deploy)
	if err != nil {
		return t, err
	}
	t.rows = []row{
		{"drover deploy", ours, "", 0},
		{"the same order and gates, nothing else", floor, "floor: no plan, no record, no report", 0},
	}
	return t, nil
}

// rollOCIS replaces every service of the oCIS that runs, in one release.
func rollOCIS(ctx context.Context, b *bench) (table, error) {
	if !b.ocis {
		return table{}, nil
	}
	t := table{title: "Roll every service of oCIS in one release"}
	list, err := b.ocisJobs(ctx)
	if err != nil {
		return t, err
	}
	ours, err := b.counted(func(b *bench) (usage, error) { return b.drover(ctx, "redeploy", "ocis", "-e", "dev") })
	if err != nil {
		return t, err
	}
	f, err := newFloor(b, list)
	if err != nil {
		return t, err
	}
	nomad, err := f.longest(ctx)
	if err != nil {
		return t, err
	}
	for _, j := range list {
		j.Job.SetMeta("rolled", "again")
	}
	floor, err := b.counted(func(b *bench) (usage, error) { return b.deployFloor(ctx, list) })
	if err != nil {
		return t, err
	}
	t.rows = []row{
		{"drover redeploy", ours, "", 1},
		{"the same order and gates, nothing else", floor, "floor: no plan, no record, no report", 1},
		{"the deployments alone, along the longest path", usage{elapsed: nomad}, "computed from what Nomad says of those of drover: from created to healthy, as their update blocks ask", 1},
	}
	_, err = b.drover(ctx, "destroy", "ocis", "-e", "dev", "-y")
	return t, err
}

// ocisJobs is what the dev environment of oCIS renders to.
func (b *bench) ocisJobs(ctx context.Context) ([]render.Job, error) {
	dir, err := jobs.Stack("ocis")
	if err != nil {
		return nil, err
	}
	s, err := stack.Load(ctx, stack.Options{Path: "ocis", FS: dir, Environment: "dev", Environ: b.env})
	if err != nil {
		return nil, err
	}
	return render.Stack(ctx, s, render.Options{})
}

// runDetached submits job files one after the other, and does not wait for the jobs.
func (b *bench) runDetached(ctx context.Context, files []string) (usage, error) {
	var sum usage
	for _, file := range files {
		one, err := b.nomad(ctx, 0, "job", "run", "-detach", file)
		if err != nil {
			return sum, err
		}
		sum.add(one)
	}
	return sum, nil
}
