package model

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

var (
	flagSeed  = flag.Uint64("seed", 0, "repeat the sequence of this seed")
	flagFrom  = flag.Uint64("from", 1, "the first seed")
	flagRuns  = flag.Uint64("runs", 0, "how many seeds, one after the other; 0 is 4 in make full, else 2")
	flagSteps = flag.Int("steps", 8, "how many operations each sequence has")
	flagLanes = flag.Int("lanes", 4, "how many sequences run at a time")
	flagRows  = flag.String("rows", "", "append a line of JSON for each sequence to this `file`")
)

func TestMain(m *testing.M) { devtest.Main(m) }

// TestModel does operations in random order on a real Nomad, with a model
// beside it. After each operation, what runs, what the record says, what the
// variables of the jobs hold and the exit codes have to agree with the model.
// The seed decides about everything: -seed N repeats a sequence.
func TestModel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	seeds := make(chan uint64)
	go func() {
		defer close(seeds)
		from, runs := *flagFrom, *flagRuns
		switch {
		case *flagSeed != 0:
			from, runs = *flagSeed, 1
		case runs == 0 && devtest.Full():
			runs = 4
		case runs == 0:
			runs = 2
		}
		for i := range runs {
			seeds <- from + i
		}
	}()
	var lanes sync.WaitGroup
	for range *flagLanes {
		lanes.Go(func() {
			for seed := range seeds {
				t.Run(fmt.Sprint(seed), func(t *testing.T) { s.sequence(t, seed) })
			}
		})
	}
	lanes.Wait()
}

// site is the cluster on which the sequences run.
type site struct {
	drover devtest.Program
	nomad  *api.Client
	commit string
	moves  bool // drover has the command move

	// alone is held by operations that concern every job of the cluster.
	alone sync.RWMutex
	mu    sync.Mutex // of the rows
}

func newSite(t *testing.T) *site {
	t.Helper()
	dev := devtest.Cluster(t, devcluster.Options{Shape: devcluster.Shape{Clients: 2}})
	s := &site{drover: devtest.Program{Path: devtest.Build(t, t.TempDir())}}
	var err error
	if s.drover.Env, err = dev.Env(""); err != nil {
		t.Fatal(err)
	}
	if s.nomad, err = api.NewClient(dev.NomadConfig()); err != nil {
		t.Fatal(err)
	}
	help, _ := s.drover.Run(t, "move", "--help")
	s.moves = strings.Contains(help, "--to-env")
	if out, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		s.commit = strings.TrimSpace(string(out))
	}
	return s
}

// sequence runs the operations of one seed and writes down what came of them.
func (s *site) sequence(t *testing.T, seed uint64) {
	began := time.Now()
	w := newWorld(t, s, seed)
	row := Row{Seed: seed, Commit: s.commit, Date: began.UTC().Format(time.DateOnly)}
	for len(row.Steps) < *flagSteps && row.Violation == "" {
		var step string
		step, row.Violation = w.step()
		row.Steps = append(row.Steps, step)
	}
	row.Took = time.Since(began)
	if row.Violation != "" {
		t.Errorf("seed %d: %s\nafter\n  %s\n%s\nrepeat it: go test ./tests/model -run TestModel -seed %d -steps %d",
			seed, row.Violation, strings.Join(row.Steps, "\n  "), w.said(), seed, *flagSteps)
	}
	t.Logf("seed %d: %d steps in %s: %s", seed, len(row.Steps), row.Took.Round(time.Second), strings.Join(row.Steps, "; "))
	w.remove()
	if err := s.write(row); err != nil {
		t.Error(err)
	}
}

func (s *site) write(row Row) error {
	if *flagRows == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(*flagRows, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	line, err := json.Marshal(row)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
