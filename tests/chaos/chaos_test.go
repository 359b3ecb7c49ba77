package chaos

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

var (
	flagSeed = flag.Uint64("seed", 0, "repeat the run of this seed")
	flagFrom = flag.Uint64("from", 1, "with -runs: the first seed")
	flagRuns = flag.Uint64("runs", 0, "how many seeds, one after the other (default: a few of all)")
	flagRows = flag.String("rows", "", "append a line of JSON for each run to this `file`")
	flagOCIS = flag.Uint64("ocis", 0, "how many releases of oCIS are struck, from -from on")
	flagSite = flag.String("site", "", "only seeds on this kind of site")
)

func TestMain(m *testing.M) {
	if address := os.Getenv(envBackend); address != "" {
		os.Exit(runBackend(address))
	}
	flag.Parse()
	devtest.Main(m, func() {
		for _, dir := range built {
			_ = os.RemoveAll(dir)
		}
	})
}

// fixed are seeds that `make test` always runs beside a fresh one, on one node,
// where a cluster starts fast: HAProxy and Consul stopped, and an API that
// resets connections.
var fixed = []uint64{4, 18}

// TestChaos strikes releases with faults. A seed says which, when, for how
// long, and what is done next; -seed N repeats it as far as a real cluster
// repeats anything.
func TestChaos(t *testing.T) {
	t.Parallel()
	if *flagOCIS > 0 {
		t.Skip("it is oCIS that is struck")
	}
	seeds := fixed
	switch {
	case *flagSeed != 0:
		seeds = []uint64{*flagSeed}
	case *flagRuns != 0:
		seeds = nil
		for i := range *flagRuns {
			seeds = append(seeds, *flagFrom+i)
		}
	default:
		fresh := rand.Uint64N(1 << 32)
		for first(fresh).site != single {
			fresh++
		}
		t.Logf("a fresh seed: %d", fresh)
		seeds = append(seeds, fresh)
	}
	lanes := map[string][]uint64{}
	for _, seed := range seeds {
		kind := first(seed).site
		if *flagSite != "" && kind != *flagSite {
			continue
		}
		lane := kind
		if kind == single && len(seeds) > 20 { // most seeds are for this kind
			lane = fmt.Sprint(kind, " ", seed%3)
		}
		lanes[lane] = append(lanes[lane], seed)
	}
	rows := openRows(t)
	for lane, seeds := range lanes {
		t.Run(lane, func(t *testing.T) {
			t.Parallel()
			lost := 0
			for len(seeds) > 0 {
				// A site serves until a run goes wrong on it.
				t.Run(fmt.Sprintf("site %d", lost), func(t *testing.T) {
					s := newSite(t, first(seeds[0]).site)
					for len(seeds) > 0 {
						seed := seeds[0]
						seeds = seeds[1:]
						if !t.Run(fmt.Sprint(seed), func(t *testing.T) { rows.one(t, s, seed) }) {
							return
						}
					}
				})
				lost++
			}
		})
	}
}

// rows records the results of the runs.
type rows struct {
	mu     sync.Mutex
	file   *os.File // nil if they are not recorded
	commit string
}

func openRows(t *testing.T) *rows {
	t.Helper()
	r := &rows{}
	if out, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--short=12", "HEAD").Output(); err == nil {
		r.commit = strings.TrimSpace(string(out))
		// The rows themselves are below docs.
		if out, err := exec.CommandContext(t.Context(), "git", "status", "--porcelain", "--", ":/", ":(top,exclude)docs").Output(); err != nil || len(out) > 0 {
			r.commit += " with changes"
		}
	}
	if *flagRows == "" {
		return r
	}
	f, err := os.OpenFile(*flagRows, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r.file = f
	t.Cleanup(func() { _ = f.Close() })
	return r
}

// one is one run.
func (rs *rows) one(t *testing.T, s *site, seed uint64) {
	rs.write(t, newRun(t, s, seed), (*run).execute)
}

// write makes a run and writes down what came of it.
func (rs *rows) write(t *testing.T, r *run, execute func(*run)) {
	s, seed, began := r.site, r.seed, time.Now()
	execute(r)
	row := r.row
	row.Took, row.Commit, row.Date = time.Since(began), rs.commit, began.UTC().Format(time.DateOnly)
	t.Logf("%s: %s, exit code %d, then %v, recovered in %s, %d of %d requests lost, %d files, %s altogether",
		s.kind, strings.Join(row.Faults, " and "), row.Code, row.Then, row.Recover.Round(10*time.Millisecond), row.Lost, row.Sent, row.Files, row.Took.Round(100*time.Millisecond))
	for _, v := range row.Violations {
		t.Errorf("seed %d: %s", seed, v)
	}
	if t.Failed() {
		t.Errorf("repeat it: %s", r.repeatCommand())
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.file == nil {
		return
	}
	line, err := json.Marshal(row)
	if err == nil {
		_, err = rs.file.Write(append(line, '\n'))
	}
	if err != nil {
		t.Error(err)
	}
}
