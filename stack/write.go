package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNotEmpty is returned by WriteNew for a directory with files in it.
var ErrNotEmpty = errors.New("the directory is not empty")

// WriteNew makes the directory dir with the files that write writes into the directory
// that it is called with: all or none. dir has to be empty or absent; WriteNew returns
// ErrNotEmpty for any other directory.
func WriteNew(dir string, write func(temp string) error) error {
	err := writeNew(dir, write)
	if errors.Is(err, ErrNotEmpty) {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	if err != nil {
		return fmt.Errorf("writing the stack: %w", err)
	}
	return nil
}

func writeNew(dir string, write func(temp string) error) error {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return ErrNotEmpty
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // a stack is no secret
		return err
	}
	temp, err := os.MkdirTemp(parent, ".drover-new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	if err := write(temp); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o755); err != nil { //nolint:gosec // as above
		return err
	}
	// An empty directory in the way is replaced; one that has been filled meanwhile makes
	// the rename fail.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(temp, dir)
}
