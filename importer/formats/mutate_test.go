package formats_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
)

// rounds is how often each file is changed: standard, unless the environment says
// another number.
func rounds(t *testing.T, standard int) int {
	t.Helper()
	if text := os.Getenv("DROVER_TEST_MUTATIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return standard
}

// TestCorpus_Mutated changes values of real files at random, by a fixed seed, and
// imports them: odd values are refused or reported, and never make a stack that is
// not valid.
func TestCorpus_Mutated(t *testing.T) {
	root := corpus(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "${X:-y}", "$$x", "%{x}", "{{x}}", "0", "-1", "99999999999", "1e9", "true", "null", "~", "a:b:c", "/", "/a", "..", "./x.conf:/x", "x:/y:ro", "http://x", "0.5",
		strings.Repeat("long", 40), "a\nb", "\"", "'", "\\", "host", "none", "service:web", "5m", "64m", "a=b", "a==b", "node.role==manager", "8080:80/udp", "127.0.0.1:1-3:4-6", "EOT", "a\nEOT\nb"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	for _, folder := range []string{"compose", "swarm", "rosetta"} {
		for _, c := range composeCases(t, filepath.Join(root, folder)) {
			for range rounds(t, 2) {
				in := inputs(t, c.folder, c.files)
				for i := range in {
					var doc yaml.Node
					if yaml.Unmarshal(in[i].Text, &doc) != nil {
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
					if text, err := yaml.Marshal(&doc); err == nil {
						in[i].Text = text
					}
				}
				res, err := formats.Run(t.Context(), "compose", importer.Source{Inputs: in, Environ: c.environ, Profiles: []string{"*"}, Root: root})
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
}
