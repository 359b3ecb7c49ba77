package ecs_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/ecs"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestRead_Mutated changes values of the examples at random, by a fixed seed: odd
// values are refused or reported, and never make a stack that is not valid.
func TestRead_Mutated(t *testing.T) {
	t.Parallel()
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "$$x", "%{x}", "{{.x}}", "{{resolve:ssm:x}}", "0", "-1", "99999999999", "1e9", "0.5", "true", "null", "/", "/a:b", "..", "host", "none", "awsvpc", "udp",
		"arn:aws:x:y:1:z/a:1", strings.Repeat("long", 40), "a\nb", "\"", "'", "\\", "EOT", "a\nEOT\nb", "cron(0 1 ? * 8 *)", "rate(0 days)", "attribute:a =~ (", "attribute:a exists", "postgres://u:p@h/x", "*", "80-9000", "--password=x", "SIGFOO"}
	count := importertest.Rounds(t, 150)
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	imported := 0
	for i := range count {
		texts := [][]string{{shop, service}, {stack}}[i%2]
		var src importer.Source
		src.Allow = []string{"volume-driver", "unsupported", "port-conflict", "host-path", "missing-file", "needs-image"}
		for _, text := range texts {
			src.Inputs = append(src.Inputs, importer.Input{Name: "app.yaml", Text: importertest.Mutate([]byte(text), odd, random)})
		}
		res, err := importer.Run(t.Context(), "ecs", ecs.Read, src)
		if err != nil {
			t.Fatal(err)
		}
		if !res.Refused() {
			imported++
		}
		importertest.CheckValid(t, res, src.Inputs[0].Text)
	}
	t.Logf("imported %d of %d", imported, count)
	if imported < count/3 {
		t.Errorf("got %d of %d imported, want at least a third: the changes must reach the writer", imported, count)
	}
}
