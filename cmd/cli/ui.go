package cli

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/drover-nomad/drover/deploy"
	"github.com/drover-nomad/drover/edge"
	"github.com/drover-nomad/drover/ui"
)

// uiFlags are the flags of the commands that serve the web page.
type uiFlags struct {
	listen   string
	readOnly bool
	open     bool
	interval time.Duration
}

func (u *uiFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&u.listen, "listen", "127.0.0.1:0", "loopback address to listen at; port 0 chooses a free one")
	fl.BoolVar(&u.readOnly, "read-only", false, "show everything and offer no action")
	fl.DurationVar(&u.interval, "refresh", 2*time.Second, "time between two reads of what an open page shows")
}

func newUI(streams *IO, f *factory) *cobra.Command {
	var u uiFlags
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Serve a web page of all stacks on this machine",
		Long: `Serve a web page of all stacks of the cluster: health, releases, drift, allocations,
logs, certificates, DNS records and schedules. Pages are kept up to date while they
are open. An operator can approve, resume, promote, abort, pause, roll back and
redeploy after a page has shown what changes.

It needs the token of the command line: each page and action may do what that token
may. The printed URL opens one session, so that other users of the machine cannot use
the page. It listens on loopback only.

It changes nothing by itself. It serves until Ctrl-C and exits with 0. An action that
runs at that moment leaves its release interrupted, as Ctrl-C of 'drover deploy' does.`,
		Example: "  drover ui\n  drover ui --listen 127.0.0.1:4680 --read-only",
		Args:    exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return u.serve(cmd.Context(), streams, f.readingHome(cmd), f.home(cmd), "")
		},
	}
	u.register(cmd)
	cmd.Flags().BoolVar(&u.open, "open", false, "open the page in the browser")
	return cmd
}

func newOpen(streams *IO, f *factory) *cobra.Command {
	var (
		u   uiFlags
		env string
	)
	cmd := &cobra.Command{
		Use:   "open STACK",
		Short: "Open the web page of a stack in the browser",
		Long: `Open the web page of a stack in the browser. It serves the page as 'drover ui' does,
until Ctrl-C.

It needs what 'drover ui' needs, and a program that opens a browser (xdg-open on
Linux). It changes nothing by itself, and exits with 0.`,
		Example: "  drover open ocis -e prod",
		Args:    exactArgs(1, "STACK"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := deploy.StackName(args[0])
			if err != nil {
				return err
			}
			u.open = true
			return u.serve(cmd.Context(), streams, f.readingHome(cmd), f.home(cmd), ui.StackPath(name, env))
		},
	}
	u.register(cmd)
	envFlag(cmd, &env)
	return cmd
}

// serve serves the page until ctx ends. path is the page that the URL leads to.
func (u *uiFlags) serve(ctx context.Context, streams *IO, reading, home deploy.Home, path string) error {
	if u.interval < 200*time.Millisecond {
		return usagef("--refresh must be at least 200ms")
	}
	host, _, err := net.SplitHostPort(u.listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return usagef("--listen must be a loopback address with a port, such as 127.0.0.1:4680, not %q", u.listen)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", u.listen)
	if err != nil {
		return fmt.Errorf("cannot listen at %s: %w", u.listen, err)
	}
	who := home.Holder
	page := ui.New(ui.Options{
		Source: &ui.Cluster{
			Home: home, Reading: reading,
			EdgeOptions: edge.Options{Namespace: os.Getenv(edge.NamespaceEnv), Credentials: os.Getenv(edge.CredentialsEnv), Timeout: 5 * time.Second},
		},
		Address: listener.Addr().String(), ReadOnly: u.readOnly, Operator: who.User + "@" + who.Host, Interval: u.interval,
		Opened: func(url string) { fmt.Fprintf(streams.Err, "Signed in. Another browser: %s\n", url) },
	})
	server := &http.Server{Handler: page, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		page.Close()
		_ = server.Close()
	})
	defer stop()
	url := page.URL(path)
	fmt.Fprintln(streams.Out, url)
	if u.open {
		remove, err := openBrowser(ctx, url)
		defer remove()
		if err != nil {
			fmt.Fprintf(streams.Err, "Warning: cannot open a browser: %s; open the URL\n", err)
		}
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		page.Close()
		return fmt.Errorf("cannot serve the page: %w", err)
	}
	return nil
}

// openBrowser opens a URL by a file that only this user can read: other users see the
// arguments of a process, and the URL opens a session. remove deletes the file.
func openBrowser(ctx context.Context, url string) (remove func(), err error) {
	dir, err := os.MkdirTemp("", "drover-ui-")
	if err != nil {
		return func() {}, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "open.html")
	text := `<!doctype html><meta charset="utf-8"><title>drover</title><meta http-equiv="refresh" content="0;url=` + html.EscapeString(url) + `">`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return remove, err
	}
	command := []string{"xdg-open", file}
	switch runtime.GOOS {
	case "darwin":
		command = []string{"open", file}
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", file}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		return remove, err
	}
	go func() { _ = cmd.Wait() }() // some openers end with the browser
	return remove, nil
}
