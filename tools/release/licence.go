package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// allowed are the licences that may be linked, by SPDX identifier.
var allowed = [...]string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// module is a module of which at least one package is linked.
type module struct {
	path, version string
	ids           []string // SPDX identifiers of its linked packages, sorted
	files         []string // licence and notice files that cover them
}

// linkedModules returns the modules of the binary for a platform, sorted by path. It
// finds the licence of each linked package in its directory, in those above and in its
// sources: one module may have several (Nomad's jobspec2 is MPL-2.0 in a module that is
// BUSL-1.1). It returns an error for a licence that is not allowed or not recognised.
func linkedModules(ctx context.Context, goos, goarch string) ([]module, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,SFiles,Module", "./cmd/drover")
	cmd.Env = buildEnv(goos, goarch)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	type goModule struct {
		Path, Version, Dir string
		Main               bool
		Replace            *goModule
	}
	modules := map[string]*module{}
	var problems []error
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir string
			GoFiles, SFiles []string
			Module          *goModule
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module == nil || p.Module.Main { // the standard library, drover
			continue
		}
		if p.Module.Replace != nil {
			p.Module = p.Module.Replace
		}
		files, ids, err := packageLicence(p.Module.Dir, p.Dir, slices.Concat(p.GoFiles, p.SFiles))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s (%s): %w", p.ImportPath, p.Module.Version, err))
			continue
		}
		m := modules[p.Module.Path]
		if m == nil {
			m = &module{path: p.Module.Path, version: p.Module.Version}
			modules[p.Module.Path] = m
		}
		m.ids, m.files = append(m.ids, ids...), append(m.files, files...)
	}
	var list []module
	for _, m := range slices.SortedFunc(maps.Values(modules), func(a, b *module) int { return cmp.Compare(a.path, b.path) }) {
		for _, s := range []*[]string{&m.ids, &m.files} {
			slices.Sort(*s)
			*s = slices.Compact(*s)
		}
		list = append(list, *m)
	}
	return list, errors.Join(problems...)
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense)([-.].*)?$`)
	spdx        = regexp.MustCompile(`(?m)^(?://|#|;|/\*)\s*SPDX-License-Identifier:\s*(.+?)\s*(?:\*/)?$`)
)

// packageLicence returns the licences of the package in dir, and the licence files: those
// of the nearest directory, up to root, that has any.
func packageLicence(root, dir string, sources []string) (files, ids []string, err error) {
	for at := dir; len(ids) == 0; at = filepath.Dir(at) {
		entries, err := os.ReadDir(at)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); e.IsDir() || !licenceFile.MatchString(e.Name()) || ext == ".go" || ext == ".docs" { // the last is for documentation, which is not linked
				continue
			}
			text, err := os.ReadFile(filepath.Join(at, e.Name()))
			if err != nil {
				return nil, nil, err
			}
			files = append(files, filepath.Join(at, e.Name()))
			found := recognise(string(text))
			if len(found) == 0 && !strings.HasPrefix(strings.ToUpper(e.Name()), "NOTICE") {
				return nil, nil, fmt.Errorf("%s is none of the licences that are known here", filepath.Join(at, e.Name()))
			}
			ids = append(ids, found...)
		}
		if at == root {
			break
		}
	}
	if len(ids) == 0 {
		return nil, nil, errors.New("has no licence file")
	}
	for _, name := range sources {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		for _, m := range spdx.FindAllSubmatch(text, -1) {
			ids = append(ids, strings.Split(string(m[1]), " AND ")...) // all of them apply
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	for _, id := range ids {
		if !slices.Contains(allowed[:], id) {
			return nil, nil, fmt.Errorf("is under %s, which may not be linked", id)
		}
	}
	return files, ids, nil
}

// recognise finds licences by phrases that no other licence has.
func recognise(text string) []string {
	text = strings.Join(strings.Fields(strings.ToLower(text)), " ")
	var ids []string
	for _, l := range []struct{ id, words string }{
		{"Apache-2.0", `apache license,? version 2\.0`},
		{"MIT", `permission is hereby granted, free of charge, to any person obtaining`},
		{"ISC", `permission to use, copy, modify, and(/or)? distribute this software for any purpose`},
		{"MPL-2.0", `mozilla public license,? version 2\.0`},
		{"BUSL-1.1", `business source license`},
		{"GPL", `gnu (lesser |affero )?general public license`},
	} {
		if regexp.MustCompile(l.words).MatchString(text) {
			ids = append(ids, l.id)
		}
	}
	if strings.Contains(text, "redistribution and use in source and binary forms") {
		if strings.Contains(text, "endorse or promote") {
			ids = append(ids, "BSD-3-Clause")
		} else {
			ids = append(ids, "BSD-2-Clause")
		}
	}
	if slices.Contains(ids, "MPL-2.0") { // it names the GPL as a secondary licence
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == "GPL" })
	}
	return ids
}

// thirdParty returns the text that is shipped with a binary: the text of each
// licence, and for the MPL the place of the source.
func thirdParty(ctx context.Context, linked []module) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("drover is linked with the Go standard library and these modules, unmodified.\n" +
		"The source of each is at https://proxy.golang.org/MODULE/@v/VERSION.zip\n" +
		"(an upper-case letter is written as ! and its lower case).\n")
	section := func(title string, files []string) error {
		fmt.Fprintf(&out, "\n%s\n%s\n", strings.Repeat("=", 72), title)
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "\n%s\n", bytes.TrimSpace(text))
		}
		return nil
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	if err := section("The Go standard library (BSD-3-Clause)", []string{filepath.Join(strings.TrimSpace(string(goroot)), "LICENSE")}); err != nil {
		return nil, err
	}
	for _, m := range linked {
		if err := section(fmt.Sprintf("%s %s (%s)", m.path, m.version, strings.Join(m.ids, ", ")), m.files); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}
