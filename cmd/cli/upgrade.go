package cli

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/importer"
	"github.com/drover-nomad/drover/importer/nomad"
)

// upgraded is what came of one file.
type upgraded struct {
	File     string             `json:"file"`
	Changes  []nomad.Change     `json:"changes"`
	Findings []importer.Finding `json:"findings"`
	Refused  bool               `json:"refused"`

	before, after []byte
}

func newUpgrade(streams *IO) *cobra.Command {
	var (
		format string
		write  bool
	)
	cmd := &cobra.Command{
		Use:   "upgrade FILE…",
		Short: "Rewrite old Nomad job files for today's Nomad",
		Long: `Rewrite job files of Nomad 0.1 to 0.12, which are in HCL1, for today's Nomad. Files of
today that have deprecated settings are rewritten too. Comments stay.

The command reads the files, which may be jobs or layers of a stack. "-" is the standard
input. It makes no request.

It prints the differences, or the new text with -o text. With --write, it changes the
files in place. It prints each change, and each difference in behaviour, with file and
line.

The exit code is 0 if the files are, or are made, files of today's Nomad. It is 2 if a
file is refused: no file is changed then.`,
		Example: `  drover upgrade web.nomad
  drover upgrade --write web.nomad db.nomad
  drover upgrade -o text web.nomad | nomad job plan -`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s: give FILE…", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("-o", format, "diff", "text", "json"); err != nil {
				return err
			}
			all, refused, err := upgradeFiles(streams, args)
			if err != nil {
				return err
			}
			if err := printUpgrade(streams, all, format, write); err != nil {
				return err
			}
			if refused {
				if format != "json" {
					fmt.Fprintln(streams.Err, "A file is refused; nothing was changed.")
				}
				return errSilent{exitUsage}
			}
			if !write {
				return nil
			}
			for _, u := range all {
				if err := rewrite(streams, u); err != nil {
					return err
				}
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&format, "output", "o", "diff", "diff, text or json")
	fl.BoolVarP(&write, "write", "w", false, "change the files in place")
	return cmd
}

// upgradeFiles reads and upgrades files, and reports whether one is refused.
func upgradeFiles(streams *IO, names []string) ([]upgraded, bool, error) {
	inputs, err := readInputs(streams.In, names)
	if err != nil {
		return nil, false, err
	}
	var all []upgraded
	refused := false
	for _, in := range inputs {
		l := importer.NewLedger(nil)
		u := upgraded{File: in.Name, before: in.Text, Changes: []nomad.Change{}, Findings: []importer.Finding{}}
		var changes []nomad.Change
		u.after, changes = nomad.Upgrade(in.Name, in.Text, l)
		l.Finish()
		u.Changes, u.Findings, u.Refused = append(u.Changes, changes...), append(u.Findings, l.Findings()...), l.Refused()
		refused = refused || u.Refused
		all = append(all, u)
	}
	return all, refused, nil
}

func printUpgrade(streams *IO, all []upgraded, format string, write bool) error {
	if format == "json" {
		enc := json.NewEncoder(streams.Out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(all)
	}
	for _, u := range all {
		if !u.Refused {
			for _, c := range u.Changes {
				fmt.Fprintln(streams.Err, c)
			}
		}
		for _, f := range u.Findings {
			fmt.Fprintln(streams.Err, f)
		}
		if u.Refused || write {
			continue
		}
		text := string(u.after)
		if format == "diff" {
			text = nomad.Diff(u.File, u.before, u.after)
		}
		if _, err := fmt.Fprint(streams.Out, text); err != nil {
			return err
		}
	}
	return nil
}

// rewrite replaces a file by its upgraded text, in one step.
func rewrite(streams *IO, u upgraded) error {
	if u.File == "-" {
		_, err := streams.Out.Write(u.after)
		return err
	}
	if string(u.before) == string(u.after) {
		fmt.Fprintf(streams.Out, "%s: nothing to change\n", u.File)
		return nil
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(u.File); err == nil {
		mode = info.Mode().Perm()
	}
	name := u.File
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	temp, err := os.CreateTemp(filepath.Dir(name), ".drover-upgrade-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", u.File, err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(u.after)
	if cerr := temp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(temp.Name(), mode)
	}
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", u.File, err)
	}
	fmt.Fprintf(streams.Out, "%s: %d changes\n", u.File, len(u.Changes))
	return nil
}
