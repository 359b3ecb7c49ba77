package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil { // where make runs it
		panic(err)
	}
	os.Exit(m.Run())
}

// Every package that is linked, on any platform, has a licence that is allowed.
func TestLicences(t *testing.T) {
	t.Parallel()
	for _, p := range platforms {
		goos, goarch, _ := strings.Cut(p, "/")
		linked, err := linkedModules(t.Context(), goos, goarch)
		if err != nil {
			t.Errorf("%s: %v", p, err)
		}
		if len(linked) < 20 {
			t.Errorf("%s: only %d modules are linked?", p, len(linked))
		}
	}
}

// packageLicence finds a forbidden licence in the licence file and in the headers of the
// sources. It refuses a package without a licence. The licence of a directory overrides
// that of its module.
func TestLicenceOfAPackage(t *testing.T) {
	t.Parallel()
	const (
		mpl  = "Mozilla Public License, version 2.0\n… the GNU General Public License, Version 2.0 …"
		busl = "License text copyright (c) 2020 MariaDB Corporation Ab\nBusiness Source License 1.1"
	)
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  string // identifiers, or a part of the error
	}{
		"own licence in a BUSL module":  {fstest.MapFS{"LICENSE": {Data: []byte(busl)}, "p/LICENSE": {Data: []byte(mpl)}, "p/a.go": {Data: []byte("// SPDX-License-Identifier: MPL-2.0\n")}}, "MPL-2.0"},
		"BUSL":                          {fstest.MapFS{"LICENSE": {Data: []byte(busl)}, "p/a.go": {}}, "is under BUSL-1.1, which may not be linked"},
		"BUSL source":                   {fstest.MapFS{"LICENSE": {Data: []byte(mpl)}, "p/a.go": {Data: []byte("// SPDX-License-Identifier: BUSL-1.1\n")}}, "is under BUSL-1.1, which may not be linked"},
		"GPL":                           {fstest.MapFS{"COPYING": {Data: []byte("GNU General Public License")}, "p/a.go": {}}, "is under GPL, which may not be linked"},
		"unknown":                       {fstest.MapFS{"LICENSE.md": {Data: []byte("do as you please")}, "p/a.go": {}}, "none of the licences that are known here"},
		"all licences of an expression": {fstest.MapFS{"LICENSE": {Data: []byte("Apache License\n  Version 2.0")}, "p/a.go": {Data: []byte("// SPDX-License-Identifier: Apache-2.0 AND MIT\n")}}, "Apache-2.0 MIT"},
		"one of an expression":          {fstest.MapFS{"LICENSE": {Data: []byte("Apache License\n  Version 2.0")}, "p/a.go": {Data: []byte("// SPDX-License-Identifier: Apache-2.0 AND BUSL-1.1\n")}}, "is under BUSL-1.1, which may not be linked"},
		"licence of the documentation":  {fstest.MapFS{"LICENSE": {Data: []byte("Apache License\n  Version 2.0")}, "LICENSE.docs": {Data: []byte("Attribution-ShareAlike 4.0 International")}, "p/a.go": {}}, "Apache-2.0"},
		"none":                          {fstest.MapFS{"p/a.go": {}}, "has no licence file"},
		"two and a notice":              {fstest.MapFS{"LICENSE": {Data: []byte("Apache License\n  Version 2.0")}, "LICENSE.lib": {Data: []byte("Permission is hereby granted, free of\ncharge, to any person obtaining")}, "NOTICE": {Data: []byte("by me")}, "p/a.go": {}}, "Apache-2.0 MIT"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, fs.FS(c.files)); err != nil {
			t.Fatal(err)
		}
		_, ids, err := packageLicence(dir, filepath.Join(dir, "p"), []string{"a.go"})
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && strings.Join(ids, " ") != c.want {
			t.Errorf("%s: %q, %v; want %q", name, ids, err, c.want)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for described, want := range map[string][2]string{
		"v0.2.0":                      {"0.2.0", "0.2.0"},
		"v0.2.0-dirty":                {"0.2.0+dirty", "0.2.0+dirty"},
		"v0.2.0-rc.1":                 {"0.2.0-rc.1", "0.2.0~rc.1"},
		"v0.2.0-3-gabcdef012345":      {"0.2.0+3.gabcdef012345", "0.2.0+3.gabcdef012345"},
		"v0.2.0-rc.1-3-gabcdef012345": {"0.2.0-rc.1+3.gabcdef012345", "0.2.0~rc.1+3.gabcdef012345"},
		"abcdef012345-dirty":          {"0.1.0+abcdef012345.dirty", "0.1.0+abcdef012345.dirty"},
	} {
		v := version(described)
		if d := debianVersion(v); v != want[0] || d != want[1] {
			t.Errorf("%s: %s, %s; want %s", described, v, d, want)
		}
	}
}

// The bytes of an archive depend only on its content.
func TestArchiveIsReproducible(t *testing.T) {
	t.Parallel()
	at := time.Unix(1700000000, 0)
	files := []file{{"b", 0o755, []byte("B")}, {"a", 0o644, []byte("A")}}
	one, err := tarball("d", files, at)
	if err != nil {
		t.Fatal(err)
	}
	two, err := tarball("d", []file{files[1], files[0]}, at)
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("two archives of the same files differ (%v)", err)
	}
	cmd := exec.CommandContext(t.Context(), "tar", "-tvz", "--full-time", "--utc")
	cmd.Stdin = bytes.NewReader(one)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-rw-r--r-- root/root         1 2023-11-14 22:13:20 d/a") {
		t.Errorf("tar says %v\n%s", err, out)
	}
}
