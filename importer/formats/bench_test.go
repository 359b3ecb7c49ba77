package formats_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/formats"
	"github.com/drover-nomad/drover/importer/importertest"
)

// manyFiles are as many as the largest repository of manifests has that was looked at.
const manyFiles = 649

// BenchmarkKubernetes_Application imports 649 files as one application of 216 services.
func BenchmarkKubernetes_Application(b *testing.B) {
	var in []importer.Input
	for i := 0; len(in) < manyFiles; i++ {
		for _, text := range []string{
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: s%[1]d}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: s%[1]d}}\n  template:\n    metadata: {labels: {app: s%[1]d}}\n    spec:\n      containers:\n        - name: main\n          image: example.org/s%[1]d:1\n          ports: [{containerPort: 8080}]\n          envFrom: [{configMapRef: {name: s%[1]d}}]\n          readinessProbe: {httpGet: {path: /, port: 8080}}\n          resources: {requests: {cpu: 100m, memory: 64Mi}}\n",
			"apiVersion: v1\nkind: Service\nmetadata: {name: s%[1]d}\nspec: {selector: {app: s%[1]d}, ports: [{port: 80, targetPort: 8080}]}\n",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: s%[1]d}\ndata: {NEXT: 'http://s%[2]d/', LEVEL: info}\n",
		} {
			if len(in) < manyFiles {
				in = append(in, importer.Input{Name: fmt.Sprintf("%d.yaml", len(in)), Text: fmt.Appendf(nil, text, i, (i+1)%216)})
			}
		}
	}
	importAll(b, []importer.Source{{Inputs: in, Name: "shop"}})
}

// BenchmarkKubernetes_Files imports 649 real files of public repositories, each alone.
// It is skipped without them.
func BenchmarkKubernetes_Files(b *testing.B) {
	root := importertest.Data(b, "kubernetes")
	var files []importer.Source
	err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
		if ext := filepath.Ext(file); err != nil || ext != ".yaml" && ext != ".yml" {
			return err
		}
		text, err := os.ReadFile(file)
		files = append(files, importer.Source{Inputs: []importer.Input{{Name: file, Text: text}}, Root: root})
		return err
	})
	if err != nil || len(files) == 0 {
		b.Fatalf("got %d files and %v from %s", len(files), err, root)
	}
	var all []importer.Source
	for len(all) < manyFiles {
		all = append(all, files[len(all)%len(files)])
	}
	importAll(b, all)
}

// importAll imports the sources one after the other, and reports the time of the
// processors and the most memory that the process had.
func importAll(b *testing.B, all []importer.Source) {
	b.Helper()
	usage := func() (u syscall.Rusage) {
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u
	}
	before := usage()
	for b.Loop() {
		for _, src := range all {
			if _, err := formats.Run(b.Context(), "kubernetes", src); err != nil {
				b.Fatal(err)
			}
		}
	}
	after := usage()
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(after.Maxrss)/1024, "max-MB")
}
