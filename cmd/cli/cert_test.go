package cli

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drover-nomad/drover/acme/acmetest"
)

// The scripts get certificates from a real CA, all from the same.
func TestCert(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	http := l.Addr().(*net.TCPAddr)
	_ = l.Close() // drover listens there itself
	ca := acmetest.Start(t, acmetest.Options{HTTPPort: http.Port})
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/cert",
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "DIRECTORY="+ca.Directory, "HTTP="+http.String(), "NOMAD_ADDR=http://127.0.0.1:1")
			return os.WriteFile(e.Cd+"/ca.pem", []byte(ca.Root), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "serve": serve},
	})
}

// serve VAR DIR serves what is exported in DIR, at $VAR.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[1])
	cert, err := tls.LoadX509KeyPair(dir+"/fullchain.pem", dir+"/privkey.pem")
	ts.Check(err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = c.(*tls.Conn).Handshake()
				_ = c.Close()
			}()
		}
	}()
	ts.Setenv(args[0], fmt.Sprint(l.Addr()))
}
