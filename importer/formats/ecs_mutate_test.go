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

// TestCorpus_ECSMutated changes values of real files of Amazon ECS at random, by a
// fixed seed: odd values are refused or reported, and never make a stack that is not
// valid.
func TestCorpus_ECSMutated(t *testing.T) {
	root := importertest.Data(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "$$x", "%{x}", "{{.x}}", "0", "-1", "99999999999", "1e9", "0.5", "true", "null", "/", "/a:b", "..", "host", "none", "awsvpc", "udp",
		"arn:aws:x:y:1:z/a:1", strings.Repeat("long", 40), "a\nb", "\"", "\\", "EOT", "a\nEOT\nb", "cron(0 1 ? * 8 *)", "attribute:a =~ (", "postgres://u:p@h/x"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	for _, file := range ecsFiles(t, root) {
		for range importertest.Rounds(t, 4) {
			in := inputs(t, filepath.Dir(file), []string{filepath.Base(file)})
			in[0].Text = importertest.Mutate(in[0].Text, odd, random)
			res, err := formats.Run(t.Context(), "ecs", importer.Source{Inputs: in, Root: root})
			if err != nil {
				t.Fatal(err)
			}
			importertest.CheckValid(t, res, in[0].Text)
		}
	}
}
