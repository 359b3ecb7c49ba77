package stack

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteNew(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		there []string // files in the directory before; nil if it does not exist
		fails error    // of the function that writes, after its first file
		late  bool     // another program fills the directory meanwhile
		want  error    // nil for success
		files []string
	}{
		"absent":                  {nil, nil, false, nil, []string{"stack.hcl"}},
		"empty":                   {[]string{}, nil, false, nil, []string{"stack.hcl"}},
		"not empty":               {[]string{"mine"}, nil, false, ErrNotEmpty, []string{"mine"}},
		"fails half-way":          {nil, broken, false, broken, nil},
		"filled at the same time": {[]string{}, nil, true, os.ErrExist, []string{"late"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			dir := filepath.Join(parent, "deep", "shop")
			file := func(dir, name string) {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Error(err)
				}
			}
			if c.there != nil {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range c.there {
				file(dir, name)
			}
			err := WriteNew(dir, func(temp string) error {
				file(temp, "stack.hcl")
				if c.late {
					file(dir, "late")
				}
				return c.fails
			})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil && (c.files != nil || !errors.Is(err, os.ErrNotExist)) {
				t.Fatal(err)
			}
			if len(entries) != len(c.files) || len(entries) > 0 && entries[0].Name() != c.files[0] {
				t.Errorf("got the files %v, want %v", entries, c.files)
			}
			if rest, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(rest) > 1 {
				t.Errorf("got %v, %v beside the directory, want nothing", rest, err)
			}
		})
	}
}
