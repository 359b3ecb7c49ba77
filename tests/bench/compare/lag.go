package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"
)

// lag measures how much later than Nomad's event stream drover says that a
// service is healthy: the bench reads both, the stream itself.
func lag(ctx context.Context, b *bench) (table, error) {
	t := table{title: fmt.Sprintf("From Nomad's event that a service is healthy to drover's line about it, %d services", b.serial)}
	dir := filepath.Join(b.temp, "lag")
	if err := cheapStack(dir, "lag", b.serial, true); err != nil {
		return t, err
	}
	client, err := api.NewClient(&api.Config{Address: b.get("NOMAD_ADDR")})
	if err != nil {
		return t, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	stream, err := client.EventStream().Stream(ctx, map[api.Topic][]string{api.TopicDeployment: {"*"}}, 0, nil)
	if err != nil {
		return t, err
	}
	var mu sync.Mutex
	told := map[string]time.Time{} // by Nomad, by job
	go func() {
		for events := range stream {
			now := time.Now()
			mu.Lock()
			for _, e := range events.Events {
				d, err := e.Deployment()
				if err != nil || d == nil || !allHealthy(d) {
					continue
				}
				if _, ok := told[d.JobID]; !ok {
					told[d.JobID] = now
				}
			}
			mu.Unlock()
		}
	}()
	said, err := b.lines(ctx, "deploy", dir, "-o", "json")
	if err != nil {
		return t, err
	}
	mu.Lock()
	defer mu.Unlock()
	var lags []time.Duration
	for job, at := range said {
		if event, ok := told[job]; ok {
			lags = append(lags, at.Sub(event))
		}
	}
	if len(lags) != b.serial {
		return t, fmt.Errorf("of %d services, %d were seen by both", b.serial, len(lags))
	}
	slices.Sort(lags)
	t.rows = []row{
		{"the median", usage{elapsed: max(0, lags[len(lags)/2])}, "", 0},
		{"the longest", usage{elapsed: max(0, lags[len(lags)-1])}, "", 0},
	}
	_, err = b.drover(ctx, "destroy", dir, "-y")
	return t, err
}

func allHealthy(d *api.Deployment) bool {
	for _, g := range d.TaskGroups {
		if g.HealthyAllocs < g.DesiredTotal {
			return false
		}
	}
	return true
}

// lines runs drover and returns when it first said of each job that all its
// allocations are healthy.
func (b *bench) lines(ctx context.Context, args ...string) (map[string]time.Time, error) {
	cmd := exec.CommandContext(ctx, b.path.drover, args...)
	cmd.Env = append(os.Environ(), b.env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	said := map[string]time.Time{}
	for s := bufio.NewScanner(out); s.Scan(); {
		now := time.Now()
		var e struct {
			Event   string `json:"event"`
			JobID   string `json:"job_id"`
			Healthy int    `json:"healthy"`
			Desired int    `json:"desired"`
		}
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Event != "progress" && e.Event != "done" || e.Desired == 0 || e.Healthy < e.Desired {
			continue
		}
		if _, ok := said[e.JobID]; !ok {
			said[e.JobID] = now
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("drover %v: %w", args, err)
	}
	return said, nil
}
