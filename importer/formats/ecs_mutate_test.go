package formats_test

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
)

// TestCorpus_ECSMutated changes values of real files of Amazon ECS at random, by a
// fixed seed: odd values are refused or reported, and never make a stack that is not
// valid.
func TestCorpus_ECSMutated(t *testing.T) {
	root := corpus(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "$$x", "%{x}", "{{.x}}", "0", "-1", "99999999999", "1e9", "0.5", "true", "null", "/", "/a:b", "..", "host", "none", "awsvpc", "udp",
		"arn:aws:x:y:1:z/a:1", strings.Repeat("long", 40), "a\nb", "\"", "\\", "EOT", "a\nEOT\nb", "cron(0 1 ? * 8 *)", "attribute:a =~ (", "postgres://u:p@h/x"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	for _, file := range ecsFiles(t, root) {
		for range rounds(t, 4) {
			in := inputs(t, filepath.Dir(file), []string{filepath.Base(file)})
			var doc yaml.Node
			if yaml.Unmarshal(in[0].Text, &doc) != nil {
				continue
			}
			var scalars []*yaml.Node
			var walk func(*yaml.Node, bool)
			walk = func(n *yaml.Node, key bool) {
				if n.Kind == yaml.ScalarNode && !key {
					scalars = append(scalars, n)
				}
				for j, child := range n.Content {
					walk(child, n.Kind == yaml.MappingNode && j%2 == 0 && random.IntN(20) > 0)
				}
			}
			walk(&doc, false)
			for range 1 + random.IntN(3) {
				if len(scalars) > 0 {
					n := scalars[random.IntN(len(scalars))]
					n.Value, n.Tag, n.Style = odd[random.IntN(len(odd))], "", 0
				}
			}
			text, err := yaml.Marshal(&doc)
			if err != nil {
				continue
			}
			in[0].Text = text
			res, err := formats.Run(t.Context(), "ecs", importer.Source{Inputs: in, Root: root})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range res.Findings {
				if strings.Contains(f.Message, importer.Mistake) || strings.Contains(f.Message, "the stack would not be valid") {
					t.Errorf("%s\nof\n%s", f, in[0].Text)
				}
			}
		}
	}
}
