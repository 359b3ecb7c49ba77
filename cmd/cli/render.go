package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/parallel"
	"github.com/drover-nomad/drover/render"
	"github.com/drover-nomad/drover/stack"
)

func newRender(streams *IO) *cobra.Command {
	var (
		flags  stackFlags
		format string
		out    string
	)
	cmd := &cobra.Command{
		Use:   "render STACK",
		Short: "Print the job specs of a stack",
		Long: `Print the job specs of a stack in dependency order. If the environment has several
targets, they are printed one after the other.

STACK is a directory, a single job file or the name of a stack that ships with
drover. With a single job file, the output is that of 'nomad job run -output'.`,
		Example: `  drover render ocis -e prod --var domain=cloud.example.org
  drover render ./mycloud -e prod -o hcl --out rendered`,
		Args: exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "json" && format != "hcl" {
				return usagef("-o is json or hcl, not %q", format)
			}
			s, specs, err := flags.specs(cmd.Context(), args[0], format)
			if err != nil {
				return err
			}
			if out != "" {
				return writeSpecs(out, format, s, specs)
			}
			w := bufio.NewWriter(streams.Out)
			if format == "hcl" {
				printHCL(w, specs)
			} else {
				printJSON(w, s, specs)
			}
			return w.Flush()
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVarP(&format, "output", "o", "json", "json or hcl")
	cmd.Flags().StringVar(&out, "out", "", "write one file per service into this directory")
	return cmd
}

// exactArgs is cobra.ExactArgs with an error that says what is missing.
func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s: give %s", cmd.CommandPath(), names)
		}
		return nil
	}
}

// indented returns JSON as `nomad job run -output` prints it.
func indented(text []byte, prefix string) []byte {
	var out bytes.Buffer
	out.Grow(3 * len(text))
	_ = json.Indent(&out, text, prefix, "    ") // of json.Marshal
	return out.Bytes()
}

// jobSpec is a rendered job as it is printed.
type jobSpec struct {
	job  render.Job // without its spec
	text []byte
}

// specs renders the services of the stack that arg names. Of each job it keeps only
// the text, so that a large stack takes little memory.
func (f *stackFlags) specs(ctx context.Context, arg, format string) (*stack.Stack, []jobSpec, error) {
	source := f.source(arg)
	s, err := source.Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	var out []jobSpec
	err = render.Each(ctx, s, render.Options{Services: source.Services, Targets: source.Targets}, func(j render.Job) error {
		spec := jobSpec{render.Job{Service: j.Service, Target: j.Target}, j.HCL}
		if format == "json" {
			var err error
			if spec.text, err = json.Marshal(struct{ Job *api.Job }{j.Job}); err != nil {
				return err
			}
		}
		out = append(out, spec)
		return nil
	})
	return s, out, err
}

// printJSON and printHCL leave errors to the last Flush of w.
func printJSON(w *bufio.Writer, s *stack.Stack, specs []jobSpec) {
	if s.Plain != nil {
		_, _ = fmt.Fprintf(w, "%s\n", indented(specs[0].text, ""))
		return
	}
	if len(specs) == 0 {
		_, _ = w.WriteString("[]\n")
		return
	}
	sep := "["
	for _, spec := range specs {
		_, _ = fmt.Fprintf(w, "%s\n    %s", sep, indented(spec.text, "    "))
		sep = ","
	}
	_, _ = w.WriteString("\n]\n")
}

func printHCL(w *bufio.Writer, specs []jobSpec) {
	for i, spec := range specs {
		if len(specs) > 1 {
			if i > 0 {
				_, _ = w.WriteString("\n")
			}
			_, _ = fmt.Fprintf(w, "# %s\n", spec.job.Name())
		}
		_, _ = w.Write(spec.text)
	}
}

// writeSpecs writes one file per service. For HCL it also copies the files that job
// specs may read with file(). With several targets, each gets a directory.
func writeSpecs(dir, format string, s *stack.Stack, specs []jobSpec) error {
	byTarget := map[string][]jobSpec{}
	for _, spec := range specs {
		byTarget[spec.job.Target] = append(byTarget[spec.job.Target], spec)
	}
	if len(byTarget) < 2 {
		return writeTarget(dir, dir, format, s, specs)
	}
	for target, specs := range byTarget {
		if err := writeTarget(filepath.Join(dir, target), dir, format, s, specs); err != nil {
			return err
		}
	}
	return nil
}

// writeTarget writes the jobs of one target into dir, which is out or below it.
func writeTarget(dir, out, format string, s *stack.Stack, specs []jobSpec) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // job specs are no secret
		return fmt.Errorf("writing the job specs: %w", err)
	}
	err := parallel.Each(len(specs), 8, func(i int) error {
		spec := specs[i]
		text := spec.text
		if format == "json" {
			text = append(indented(text, ""), '\n')
		}
		return os.WriteFile(filepath.Join(dir, spec.job.Service+".nomad."+format), text, 0o644) //nolint:gosec // as above
	})
	if err != nil {
		return fmt.Errorf("writing the job specs: %w", err)
	}
	if format == "json" || s.Plain != nil {
		return nil
	}
	if err := copyAssets(dir, out, s.FS); err != nil {
		return fmt.Errorf("copying the stack's files: %w", err)
	}
	return nil
}

// copyAssets copies the files of a stack that are not HCL, except those in out,
// which may be inside the stack. Copies keep the permissions: a file may be a
// private key.
func copyAssets(dir, out string, from fs.FS) error {
	target, err := os.Stat(out)
	if err != nil {
		return err
	}
	return fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() && os.SameFile(info, target) {
			return fs.SkipDir
		}
		if d.IsDir() || !d.Type().IsRegular() || strings.HasSuffix(name, ".hcl") {
			return nil
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // job specs are no secret
			return err
		}
		return writeAsset(to, text, info.Mode().Perm()&0o755|0o200) // embedded files are read-only
	})
}

// writeAsset writes a file with this mode, and replaces one that exists.
func writeAsset(name string, text []byte, mode fs.FileMode) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, text, mode)
}
