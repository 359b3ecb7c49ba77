package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/nomad/api"
	"github.com/spf13/cobra"

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
			s, jobs, err := flags.load(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if out != "" {
				return writeJobs(out, format, s, jobs)
			}
			w := bufio.NewWriter(streams.Out)
			if format == "hcl" {
				err = printHCL(w, jobs)
			} else {
				err = printJSON(w, s, jobs)
			}
			if err != nil {
				return err
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

// jobJSON is what `nomad job run -output` prints and the API accepts.
func jobJSON(j *api.Job, prefix string) ([]byte, error) {
	return json.MarshalIndent(struct{ Job *api.Job }{j}, prefix, "    ")
}

func printJSON(w io.Writer, s *stack.Stack, jobs []render.Job) error {
	if s.Plain != nil {
		text, err := jobJSON(jobs[0].Job, "")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", text)
		return err
	}
	sep := "["
	for _, j := range jobs {
		text, err := jobJSON(j.Job, "    ")
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n    %s", sep, text); err != nil {
			return err
		}
		sep = ","
	}
	if len(jobs) == 0 {
		_, err := fmt.Fprintln(w, "[]")
		return err
	}
	_, err := fmt.Fprintln(w, "\n]")
	return err
}

func printHCL(w io.Writer, jobs []render.Job) error {
	for i, j := range jobs {
		if len(jobs) > 1 {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "# %s\n", j.Name())
		}
		if _, err := w.Write(j.HCL); err != nil {
			return err
		}
	}
	return nil
}

// writeJobs writes one file per service. For HCL it also copies the files that job
// specs may read with file(). With several targets, each gets a directory.
func writeJobs(dir, format string, s *stack.Stack, jobs []render.Job) error {
	byTarget := map[string][]render.Job{}
	for _, j := range jobs {
		byTarget[j.Target] = append(byTarget[j.Target], j)
	}
	if len(byTarget) < 2 {
		return writeTarget(dir, dir, format, s, jobs)
	}
	for target, jobs := range byTarget {
		if err := writeTarget(filepath.Join(dir, target), dir, format, s, jobs); err != nil {
			return err
		}
	}
	return nil
}

// writeTarget writes the jobs of one target into dir, which is out or below it.
func writeTarget(dir, out, format string, s *stack.Stack, jobs []render.Job) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // job specs are no secret
		return fmt.Errorf("writing the job specs: %w", err)
	}
	for _, j := range jobs {
		name, text := j.Service+".nomad.hcl", j.HCL
		if format == "json" {
			var err error
			if text, err = jobJSON(j.Job, ""); err != nil {
				return err
			}
			name, text = j.Service+".nomad.json", append(text, '\n')
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil { //nolint:gosec // as above
			return fmt.Errorf("writing the job specs: %w", err)
		}
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
