package formats_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
)

// mutated is a text of YAML documents with some values changed at random.
func mutated(text []byte, odd []string, random *rand.Rand) []byte {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var docs []*yaml.Node
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
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return text
		}
		docs = append(docs, &doc)
		walk(&doc, false)
	}
	for range 1 + random.IntN(3) {
		if len(scalars) > 0 {
			n := scalars[random.IntN(len(scalars))]
			n.Value, n.Tag, n.Style = odd[random.IntN(len(odd))], "", 0
		}
	}
	var out bytes.Buffer
	for _, doc := range docs {
		if b, err := yaml.Marshal(doc); err == nil {
			out.WriteString("---\n")
			out.Write(b)
		}
	}
	return out.Bytes()
}

// TestCorpus_KubernetesMutated changes values of real manifests at random, by a fixed
// seed: odd values are refused or reported, and never make a stack that is not valid.
func TestCorpus_KubernetesMutated(t *testing.T) {
	root := corpus(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "$(X)", "$$x", "%{x}", "{{x}}", "0", "-1", "99999999999", "1e9", "0.5", "true", "null", "/", "/a:b", "..", "../x", "100%", "5m", "64Mi", "UDP", "SCTP", "LoadBalancer", "NodePort",
		"None", "*.example.org", "@daily", "StatefulSet", "Job", strings.Repeat("long", 40), "a\nb", "\"", "'", "\\", "EOT", "a\nEOT\nb", "postgres://u:p@h/x", "[]", "{}", "80", "0777"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	all := kubernetesInputs(t, root)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for range rounds(t, 2) {
			in := slices.Clone(all[name])
			for i := range in {
				in[i].Text = mutated(in[i].Text, odd, random)
			}
			res, err := formats.Run(t.Context(), "kubernetes", importer.Source{Inputs: in, Root: root})
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
