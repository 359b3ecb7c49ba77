package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/jobs"
	"github.com/drover-nomad/drover/record"
	"github.com/drover-nomad/drover/stack"
)

// completeWords adds shell completion for the arguments that the usage line calls
// STACK, SERVICE and RELEASE, and for the flags --env, --service, --target and
// --output. It evaluates no stack. It reads from the cluster for releases, and for
// a stack whose source is not here.
func completeWords(cmd *cobra.Command, f *factory) {
	for _, sub := range cmd.Commands() {
		completeWords(sub, f)
	}
	words := strings.Fields(strings.NewReplacer("[", "", "]", "", "…", "").Replace(cmd.Use))[1:]
	if cmd.ValidArgsFunction == nil && slices.Contains(words, "STACK") {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) >= len(words) {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			switch words[len(args)] {
			case "STACK":
				return stackNames(), cobra.ShellCompDirectiveDefault // and files
			case "SERVICE":
				return f.serviceNames(cmd, args[0]), cobra.ShellCompDirectiveNoFileComp
			case "RELEASE":
				return f.releaseNames(cmd, args[0]), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
			case "FILE":
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	ofStack := func(names func(*cobra.Command, string) []string) cobra.CompletionFunc {
		return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return names(cmd, args[0]), cobra.ShellCompDirectiveNoFileComp
		}
	}
	for name, complete := range map[string]cobra.CompletionFunc{"env": ofStack(f.environmentNames), "service": ofStack(f.serviceNames)} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.RegisterFlagCompletionFunc(name, complete) // fails only when there is one already
		}
	}
	if cmd.Flags().Lookup("target") != nil {
		_ = cmd.RegisterFlagCompletionFunc("target", func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.targetNames(cmd, args[0]), cobra.ShellCompDirectiveNoFileComp
		})
	}
	if output := cmd.Flags().Lookup("output"); output != nil {
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats(output.Usage), cobra.ShellCompDirectiveNoFileComp))
	}
}

// formats are the values that the usage of --output names.
func formats(usage string) []string {
	var found []string
	for _, w := range strings.FieldsFunc(usage, func(r rune) bool { return r == ' ' || r == ',' || r == ':' }) {
		if slices.Contains([]string{"text", "json", "hcl", "yaml"}, w) && !slices.Contains(found, w) {
			found = append(found, w)
		}
	}
	return found
}

// stackNames returns the stacks that ship with drover and those below the working
// directory.
func stackNames() []string {
	names := jobs.Names()
	here, _ := filepath.Glob("*/" + stack.ConfigFile)
	for _, f := range here {
		names = append(names, filepath.Dir(f))
	}
	files, _ := filepath.Glob("*.nomad.hcl")
	return append(names, files...)
}

// stackFiles returns the directory of a stack, nil if arg names no stack.
func stackFiles(arg string) fs.FS {
	if info, err := os.Stat(arg); err == nil {
		if !info.IsDir() {
			return nil
		}
		return os.DirFS(arg)
	}
	files, err := jobs.Stack(arg)
	if err != nil {
		return nil
	}
	return files
}

func (f *factory) environmentNames(cmd *cobra.Command, arg string) []string {
	files := stackFiles(arg)
	if files == nil {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		clients, err := f.connect(ctx, false)
		if err != nil {
			return nil
		}
		stacks, err := record.Stacks(ctx, clients.Nomad) // without an answer there are no suggestions
		if err != nil {
			return nil
		}
		var names []string
		for _, s := range stacks {
			if name, env, _ := strings.Cut(s, "/"); name == arg {
				names = append(names, env)
			}
		}
		return names
	}
	var names []string
	found, _ := fs.Glob(files, "environments/*.hcl")
	for _, f := range found {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(f, "environments/"), ".hcl"))
	}
	return names
}

func (f *factory) serviceNames(cmd *cobra.Command, arg string) []string {
	files := stackFiles(arg)
	if files == nil {
		return f.recordedNames(cmd, arg, func(l record.Service) string { return l.Name })
	}
	outline, err := stack.Outline(arg, files)
	if err != nil {
		return nil // the command reports a mistake in the stack
	}
	var names []string
	for _, s := range outline.Services {
		names = append(names, s.Name)
	}
	return names
}

// targetNames are the labels of the target blocks of an environment.
func (f *factory) targetNames(cmd *cobra.Command, arg string) []string {
	env, _ := cmd.Flags().GetString("env") // "" when it has none
	files := stackFiles(arg)
	if files == nil {
		return f.recordedNames(cmd, arg, func(l record.Service) string { return l.Target })
	}
	if env == "" {
		env = stack.DefaultEnvironment
	}
	src, err := fs.ReadFile(files, "environments/"+env+".hcl")
	if err != nil {
		return nil
	}
	file, diags := stack.ParseHCL(src, env)
	if diags.HasErrors() {
		return nil
	}
	var names []string
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "target" && len(b.Labels) == 1 {
			names = append(names, b.Labels[0])
		}
	}
	return names
}

// completionPatience is how long a suggestion may take.
const completionPatience = 2 * time.Second

// recordedNames returns the names or the targets of the services of a stack's newest
// release, for a stack whose source is not here.
func (f *factory) recordedNames(cmd *cobra.Command, arg string, of func(record.Service) string) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	env, _ := cmd.Flags().GetString("env") // "" when it has none
	_, releases, err := f.recorded(ctx, arg, env)
	if err != nil {
		return nil
	}
	head, err := releases.Last(ctx)
	if err != nil || head == nil {
		return nil
	}
	lines, err := releases.Services(ctx, head)
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range lines {
		if name := of(l); name != "" && l.Change != record.ChangeStop {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// releaseNames returns the last releases of a stack, the newest first, each with
// its state, and none if the cluster does not answer in time.
func (f *factory) releaseNames(cmd *cobra.Command, arg string) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
	defer cancel()
	env, _ := cmd.Flags().GetString("env") // "" when it has none
	_, releases, err := f.recorded(ctx, arg, env)
	if err != nil {
		return nil
	}
	list, err := releases.List(ctx)
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range list {
		names = append(names, fmt.Sprintf("%d\t%s %s", r.Number, r.State, r.Started.Format("2006-01-02 15:04")))
	}
	return names
}
