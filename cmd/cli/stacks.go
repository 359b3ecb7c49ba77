package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"

	"github.com/drover-nomad/drover/deploy"
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
		Short: "Create a stack from a shipped one or from job specs",
		Long: `Create a stack.

With the NAME of a stack that ships with drover, the command copies its files to
DIR, which must be empty or absent. Edit them there.

With a DIR that contains your job specs, the command writes a stack.hcl there, with
one service for each *.nomad.hcl. It lists other files that look like job specs as
skipped. With FILEs, only these job specs become services: they may have other
names and be in directories below DIR.

A stack reads every *.nomad.hcl in its directory. To leave one out, give it another
name, such as _NAME.nomad.hcl. The command never overwrites a file.`,
		Example: `  drover init ocis mycloud
  drover init ./jobs
  drover init ./jobs web.hcl api/api.nomad`,
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
				return deploy.UnknownStack(args[0])
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
	err := stack.WriteNew(dir, func(temp string) error { return os.CopyFS(temp, files) })
	if errors.Is(err, stack.ErrNotEmpty) {
		return usagef("%s is not empty: drover init overwrites nothing", dir)
	}
	if err != nil {
		return err
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
	skipped, err := skippedSpecs(dir, files)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		msg := fmt.Sprintf("%s holds no job specs named *.nomad.hcl", dir)
		for _, s := range skipped {
			msg += "\n" + s
		}
		return usagef("%s", msg)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	f := hclwrite.NewEmptyFile()
	body := f.Body().AppendNewBlock("stack", []string{filepath.Base(abs)}).Body()
	body.SetAttributeValue("version", cty.StringVal("0.1.0"))
	fileOf := map[string]string{} // service
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
		service := specName(rel)
		if other, dup := fileOf[service]; dup {
			return usagef("%s and %s would both be service %q: rename one of them", other, rel, service)
		}
		fileOf[service] = rel
		if kind := specKind(filepath.Join(dir, rel)); kind == "json" {
			return usagef("%s is JSON, and the job specs of a stack are HCL: write it as HCL", filepath.Join(dir, rel))
		}
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
	for _, s := range skipped {
		fmt.Fprintln(streams.Err, s)
	}
	fmt.Fprintf(streams.Out, "%s: %d services. Add depends_on where one needs another; look at it with 'drover render %s'.\n", config, len(files), dir)
	return nil
}

func specName(file string) string {
	return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".hcl"), ".nomad")
}

// skippedSpecs names the files in dir, and in directories directly below it, that
// look like job specs and are not among files, and says why.
func skippedSpecs(dir string, files []string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", dir, err)
	}
	chosen := func(rel string) bool {
		return slices.ContainsFunc(files, func(f string) bool { return filepath.Clean(f) == rel || filepath.Clean(f) == filepath.Join(dir, rel) })
	}
	var out []string
	skip := func(rel, format string, args ...any) {
		out = append(out, fmt.Sprintf("skipped %s: %s", filepath.Join(dir, rel), fmt.Sprintf(format, args...)))
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, "."), name == "environments", chosen(name):
		case e.IsDir():
			below, err := filepath.Glob(filepath.Join(dir, name, "*.nomad.hcl"))
			if err == nil && len(below) > 0 && !slices.ContainsFunc(below, func(f string) bool { return chosen(filepath.Join(name, filepath.Base(f))) }) {
				skip(name, "a directory is not searched; name its job specs: drover init %s %s", dir, filepath.Join(name, filepath.Base(below[0])))
			}
		case name == stack.BaseFile:
		default:
			switch specKind(filepath.Join(dir, name)) {
			case "json":
				skip(name, "it is JSON, and the job specs of a stack are HCL")
			case "hcl":
				if strings.HasPrefix(name, "_") {
					skip(name, "its name begins with _")
					continue
				}
				skip(name, "its name does not end with .nomad.hcl; rename it to %s.nomad.hcl, or name the files: drover init %s %s", specName(name), dir, name)
			}
		}
	}
	return out, nil
}

// specKind is "hcl" or "json" for a file that looks like a job spec of that
// format, and "" for any other.
func specKind(path string) string {
	if !slices.Contains([]string{".hcl", ".nomad", ".json"}, filepath.Ext(path)) {
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		var job struct{ ID, Job, TaskGroups json.RawMessage }
		if json.Unmarshal(text, &job) == nil && (job.Job != nil || job.ID != nil && job.TaskGroups != nil) {
			return "json"
		}
		return ""
	}
	file, _ := stack.ParseHCL(text, path)
	if file == nil {
		return ""
	}
	body, ok := file.Body.(*hclsyntax.Body)
	if ok && slices.ContainsFunc(body.Blocks, func(b *hclsyntax.Block) bool { return b.Type == "job" }) {
		return "hcl"
	}
	return ""
}
