package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/stack"
)

func newStacks(streams *IO) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "stacks",
		Short: "List the stacks that ship with drover",
		Example: `  drover stacks
  drover stacks -o json`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			type row struct {
				Name        string `json:"name"`
				Version     string `json:"version"`
				AppVersion  string `json:"app_version"`
				Services    int    `json:"services"`
				Description string `json:"description"`
			}
			rows := []row{}
			for _, name := range jobs.Names() {
				files, err := jobs.Stack(name)
				if err != nil {
					return err
				}
				s, err := stack.Outline(name, files)
				if err != nil {
					return err
				}
				rows = append(rows, row{s.Name, s.Version, s.AppVersion, len(s.Services), s.Description})
			}
			switch format {
			case "json":
				enc := json.NewEncoder(streams.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(rows)
			case "text":
				w := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NAME\tVERSION\tAPP VERSION\tSERVICES\tDESCRIPTION")
				for _, r := range rows {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", r.Name, r.Version, r.AppVersion, r.Services, r.Description)
				}
				return w.Flush()
			}
			return usagef("-o is text or json, not %q", format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func newInit(streams *IO) *cobra.Command {
	return &cobra.Command{
		Use:   "init NAME DIR | init DIR [FILE…]",
		Short: "Start a stack: a copy of a shipped one, or one of your own job specs",
		Long: `Start a stack.

With the NAME of a stack that ships with drover, its files are written to DIR,
which must be empty or absent, to be edited.

With a DIR of your own job specs (*.nomad.hcl), a stack.hcl with one service
for each is written there; FILEs narrow it to some of them. Nothing is ever
overwritten.`,
		Example: `  drover init ocis mycloud
  drover init ./jobs web.nomad.hcl api.nomad.hcl`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: give NAME DIR, or a DIR with job specs", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
				return initOwn(streams, args[0], args[1:])
			}
			files, err := jobs.Stack(args[0])
			switch {
			case err != nil && len(args) == 1:
				return usagef("%s is not a directory; put job specs named *.nomad.hcl into one", args[0])
			case err != nil:
				return notFound(args[0])
			case len(args) != 2:
				return usagef("init %s: give one directory to write the stack to", args[0])
			}
			return initShipped(streams, files, args[0], args[1])
		},
	}
}

// initShipped copies a stack into a new or empty directory, whole or not at
// all.
func initShipped(streams *IO, files fs.FS, name, dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return usagef("%s is not empty: drover init overwrites nothing", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("writing the stack: %w", err)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // a stack is no secret
		return fmt.Errorf("writing the stack: %w", err)
	}
	temp, err := os.MkdirTemp(parent, ".drover-init-")
	if err != nil {
		return fmt.Errorf("writing the stack: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := os.CopyFS(temp, files); err != nil {
		return fmt.Errorf("writing the stack: %w", err)
	}
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // as above
		return fmt.Errorf("writing the stack: %w", err)
	}
	// An empty directory in the way is replaced; one that has been filled
	// meanwhile makes the rename fail.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing the stack: %w", err)
	}
	if err := os.Rename(temp, dir); err != nil {
		return fmt.Errorf("writing the stack: %w", err)
	}
	fmt.Fprintf(streams.Out, "%s: the stack %q is yours to edit. Look at it with 'drover render %s'.\n", dir, name, dir)
	return nil
}

// initOwn writes stack.hcl over existing job specs.
func initOwn(streams *IO, dir string, files []string) error {
	config := filepath.Join(dir, stack.ConfigFile)
	if _, err := os.Stat(config); err == nil {
		return usagef("%s exists: drover init overwrites nothing", config)
	}
	outline, err := stack.Outline(dir, os.DirFS(dir))
	if err != nil {
		return err
	}
	all := len(files) == 0
	for _, svc := range outline.Services {
		if all {
			files = append(files, svc.File)
		} else if !slices.ContainsFunc(files, func(f string) bool { return filepath.Base(f) == svc.File }) {
			return usagef("%s is a job spec that you did not name: name it too, or rename it to _%s to leave it out", filepath.Join(dir, svc.File), svc.File)
		}
	}
	if len(files) == 0 {
		return usagef("%s holds no job specs named *.nomad.hcl", dir)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	f := hclwrite.NewEmptyFile()
	body := f.Body().AppendNewBlock("stack", []string{filepath.Base(abs)}).Body()
	body.SetAttributeValue("version", cty.StringVal("0.1.0"))
	for _, name := range files {
		rel := name
		if filepath.IsAbs(name) || strings.HasPrefix(filepath.Clean(name), filepath.Clean(dir)+string(filepath.Separator)) {
			if rel, err = filepath.Rel(dir, name); err != nil {
				return usagef("%s is not below %s", name, dir)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, rel)); err != nil || info.IsDir() || !fs.ValidPath(filepath.ToSlash(rel)) {
			return usagef("there is no job spec %s in %s", name, dir)
		}
		service := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(rel), ".hcl"), ".nomad")
		f.Body().AppendNewline()
		block := f.Body().AppendNewBlock("service", []string{service}).Body()
		if rel != service+".nomad.hcl" {
			block.SetAttributeValue("file", cty.StringVal(filepath.ToSlash(rel)))
		}
	}
	out, err := os.OpenFile(config, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // a stack is no secret
	if err != nil {
		return fmt.Errorf("writing the stack: %w", err)
	}
	w := bufio.NewWriter(out)
	_, _ = f.WriteTo(w) // Flush tells
	if err := errors.Join(w.Flush(), out.Close()); err != nil {
		_ = os.Remove(config)
		return fmt.Errorf("writing the stack: %w", err)
	}
	fmt.Fprintf(streams.Out, "%s: %d services. Add depends_on where one needs another; look at it with 'drover render %s'.\n", config, len(files), dir)
	return nil
}
