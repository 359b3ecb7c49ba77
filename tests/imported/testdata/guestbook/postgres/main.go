// The entry point of an image with Debian's PostgreSQL. It does what the one of the
// image postgres does: as root it gives the data to the user postgres and goes on as
// that user; without data it makes a cluster with POSTGRES_USER, POSTGRES_PASSWORD (or
// POSTGRES_PASSWORD_FILE) and POSTGRES_DB; then it becomes the server.
package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const uid = 999 // postgres, as in the image postgres

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	bin := os.Getenv("PG_BIN")
	if len(args) == 0 {
		args = []string{"postgres"}
	}
	if strings.HasPrefix(args[0], "-") {
		args = append([]string{"postgres"}, args...)
	}
	if args[0] != "postgres" {
		path, err := exec.LookPath(args[0])
		if err != nil {
			return err
		}
		return syscall.Exec(path, args, os.Environ())
	}
	data := cmp.Or(os.Getenv("PGDATA"), "/var/lib/postgresql/data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		err := filepath.WalkDir(data, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, uid, uid)
		})
		if err != nil {
			return err
		}
		if err := syscall.Setgroups(nil); err != nil {
			return err
		}
		if err := syscall.Setgid(uid); err != nil {
			return err
		}
		if err := syscall.Setuid(uid); err != nil {
			return err
		}
	}
	if err := os.Chmod(data, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err != nil {
		if err := create(bin, data); err != nil {
			return err
		}
	}
	args = append(args, "-D", data, "-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp")
	args[0] = filepath.Join(bin, "postgres")
	return syscall.Exec(args[0], args, os.Environ())
}

// create makes a cluster and the database.
func create(bin, data string) error {
	user, password := cmp.Or(os.Getenv("POSTGRES_USER"), "postgres"), os.Getenv("POSTGRES_PASSWORD")
	if name := os.Getenv("POSTGRES_PASSWORD_FILE"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		password = strings.TrimSpace(string(text))
	}
	if password == "" {
		return fmt.Errorf("the database has no password: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE")
	}
	file := filepath.Join(os.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", user, "--pwfile", file, "--auth-local=trust", "--auth-host=password", "--encoding=UTF8", "--locale=C", "--no-sync")
	initdb.Stdout, initdb.Stderr = os.Stdout, os.Stderr
	if err := initdb.Run(); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	hba, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := hba.WriteString("host all all all password\n"); err != nil {
		return err
	}
	if err := hba.Close(); err != nil {
		return err
	}
	if name := os.Getenv("POSTGRES_DB"); name != "" && name != "postgres" {
		single := exec.Command(filepath.Join(bin, "postgres"), "--single", "-D", data, "postgres")
		single.Stdin = strings.NewReader(`CREATE DATABASE "` + name + `"` + "\n")
		single.Stdout, single.Stderr = os.Stdout, os.Stderr
		if err := single.Run(); err != nil {
			return fmt.Errorf("making the database %s: %w", name, err)
		}
	}
	return nil
}
