package formats_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// TestCorpus_KubernetesMutated changes values of real manifests at random, by a fixed
// seed: odd values are refused or reported, and never make a stack that is not valid.
func TestCorpus_KubernetesMutated(t *testing.T) {
	root := importertest.Data(t)
	odd := []string{"", " ", "a b", "A_B.C", "-", "é", "${X}", "$(X)", "$$x", "%{x}", "{{x}}", "0", "-1", "99999999999", "1e9", "0.5", "true", "null", "/", "/a:b", "..", "../x", "100%", "5m", "64Mi", "UDP", "SCTP", "LoadBalancer", "NodePort",
		"None", "*.example.org", "@daily", "StatefulSet", "Job", strings.Repeat("long", 40), "a\nb", "\"", "'", "\\", "EOT", "a\nEOT\nb", "postgres://u:p@h/x", "[]", "{}", "80", "0777"}
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // repeatable on purpose
	all := kubernetesInputs(t, root)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for range importertest.Rounds(t, 2) {
			in := slices.Clone(all[name])
			for i := range in {
				in[i].Text = importertest.Mutate(in[i].Text, odd, random)
			}
			res, err := formats.Run(t.Context(), "kubernetes", importer.Source{Inputs: in, Root: root})
			if err != nil {
				t.Fatal(err)
			}
			importertest.CheckValid(t, res, in[0].Text)
		}
	}
}
