package formats_test

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestCorpus_Mutated changes values of real files at random, by a fixed seed, and
// imports them: odd values are refused or reported, and never make a stack that is
// not valid.
func TestCorpus_Mutated(t *testing.T) {
	root := importertest.Data(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "${X:-y}", "$$x", "%{x}", "{{x}}", "0", "-1", "99999999999", "1e9", "true", "null", "~", "a:b:c", "/", "/a", "..", "./x.conf:/x", "x:/y:ro", "http://x", "0.5",
		strings.Repeat("long", 40), "a\nb", "\"", "'", "\\", "host", "none", "service:web", "5m", "64m", "a=b", "a==b", "node.role==manager", "8080:80/udp", "127.0.0.1:1-3:4-6", "EOT", "a\nEOT\nb"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	for _, folder := range []string{"compose", "swarm", "rosetta"} {
		for _, c := range composeCases(t, filepath.Join(root, folder)) {
			for range importertest.Rounds(t, 2) {
				in := inputs(t, c.folder, c.files)
				for i := range in {
					in[i].Text = importertest.Mutate(in[i].Text, odd, random)
				}
				res, err := formats.Run(t.Context(), "compose", importer.Source{Inputs: in, Environ: c.environ, Profiles: []string{"*"}, Root: root})
				if err != nil {
					t.Fatal(err)
				}
				importertest.CheckValid(t, res, in[0].Text)
			}
		}
	}
}
