package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/drover-nomad/drover/cmd/cli"
)

// walk calls f with every command that is not hidden, parents first. It leaves out help
// topics.
func walk(cmd *cobra.Command, f func(*cobra.Command) error) error {
	if err := f(cmd); err != nil {
		return err
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := walk(sub, f); err != nil {
			return err
		}
	}
	return nil
}

// markdown returns the reference of the commands, by file name.
func markdown() (map[string][]byte, error) {
	pages := map[string][]byte{}
	err := walk(cli.Root(), func(cmd *cobra.Command) error {
		var page bytes.Buffer
		err := doc.GenMarkdownCustom(cmd, &page, func(name string) string { return name })
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "_") + ".md"
		pages[name] = append(bytes.TrimSpace(page.Bytes()), '\n')
		return err
	})
	return pages, err
}

// writeMarkdown replaces the pages in dir.
func writeMarkdown(dir string) error {
	pages, err := markdown()
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "drover*.md"))
	if err != nil {
		return err
	}
	for _, f := range old {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil { //nolint:gosec // documentation
			return err
		}
	}
	return nil
}

// manPages are man/man1/drover*.1.
func manPages(src source) ([]file, error) {
	var files []file
	err := walk(cli.Root(), func(cmd *cobra.Command) error {
		var page bytes.Buffer
		header := &doc.GenManHeader{Section: "1", Date: &src.time, Source: "drover " + src.version, Manual: "drover"}
		err := doc.GenMan(cmd, header, &page)
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		files = append(files, file{"man/man1/" + name + ".1", 0o644, page.Bytes()})
		return err
	})
	return files, err
}

// completions returns the scripts of the shells, under the names that each shell loads.
func completions() ([]file, error) {
	root := cli.Root()
	var bash, zsh, fish bytes.Buffer
	for _, err := range []error{root.GenBashCompletionV2(&bash, true), root.GenZshCompletion(&zsh), root.GenFishCompletion(&fish, true)} {
		if err != nil {
			return nil, fmt.Errorf("completions: %w", err)
		}
	}
	return []file{
		{"completions/drover.bash", 0o644, bash.Bytes()},
		{"completions/_drover", 0o644, zsh.Bytes()},
		{"completions/drover.fish", 0o644, fish.Bytes()},
	}, nil
}
