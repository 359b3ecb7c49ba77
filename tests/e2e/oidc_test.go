package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-nomad/drover/devcluster"
)

// freePort is a port of 127.0.0.1 that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// program runs one of drover's tools until the test is over.
func program(t *testing.T, name string, env []string, args ...string) {
	t.Helper()
	path, err := (devcluster.Tools{Events: func(e devcluster.Event) { t.Log(e.Text) }}).Path(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	background(t, path, env, args...)
}

// background runs a program until the test is over.
func background(t *testing.T, path string, env []string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%.4000s", filepath.Base(path), out.String())
		}
	})
}

// testOIDC logs in at a provider of OpenID Connect, with oauth2-proxy as the
// authenticator of the edge.
func testOIDC(t *testing.T, e *entrance) {
	provider, proxy := freePort(t), freePort(t)
	issuer := "http://localhost:" + provider + "/"
	program(t, devcluster.OIDCServer, []string{"PORT=" + provider, "REDIRECT_URI=https://private.test/oauth2/callback"})
	eventually(t, "the provider answers", func() bool {
		res, err := http.Get(issuer + ".well-known/openid-configuration")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	program(t, devcluster.OAuth2Proxy, nil, "--http-address=127.0.0.1:"+proxy, "--reverse-proxy=true", "--upstream=static://202", "--set-xauthrequest=true",
		"--provider=oidc", "--oidc-issuer-url="+issuer, "--client-id=web", "--client-secret=secret", "--redirect-url=https://private.test/oauth2/callback",
		"--scope=openid profile email", "--email-domain=*", "--cookie-secret=0123456789abcdef0123456789abcdef", "--skip-provider-button=true")
	e.register(t, "oauth2-proxy", "127.0.0.1:"+proxy, "drover.route=private.test/oauth2/")
	app := serve(t, "private")
	e.register(t, "private", address(app), "drover.route=private.test/", "drover.forward-auth=oauth2-proxy/ X-Auth-Request-Email,X-Auth-Request-User")
	e.loaded(t)
	eventually(t, "oauth2-proxy is asked", func() bool {
		res, err := e.client(false).Do(e.request(t, "GET", "https://private.test/", nil))
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusFound
	})

	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: e.roots, ServerName: e.Loopback()},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if !strings.HasPrefix(address, "localhost:") {
				address = e.Loopback() + ":9443"
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Jar: jar, Transport: transport}
	res, err := client.Get("https://private.test/page?x=1")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	login := res.Request.URL
	if login.Host != "localhost:"+provider || res.StatusCode != http.StatusOK {
		t.Fatalf("the way to the login ends at %s with status %d", login, res.StatusCode)
	}
	res, err = client.PostForm(login.Scheme+"://"+login.Host+login.Path, url.Values{"username": {"test-user@localhost"}, "password": {"verysecure"}, "id": {login.Query().Get("authRequestID")}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var a arrived
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		t.Fatalf("after the login: %s with status %d, %v", res.Request.URL, res.StatusCode, err)
	}
	if a.Backend != "private" || a.URI != "/page?x=1" || a.Header.Get("X-Auth-Request-Email") != "test-user@zitadel.ch" {
		t.Errorf("after the login arrived %+v, want /page?x=1 of test-user@zitadel.ch", a)
	}
	// Another client has no session.
	e.do(t, http.StatusFound, "GET", "https://private.test/", http.Header{"Cookie": {"_oauth2_proxy=forged"}, "X-Auth-Request-Email": {"test-user@zitadel.ch"}}, nil)
	if err := e.consul.Agent().ServiceDeregister(e.id(t, "oauth2-proxy", fmt.Sprint("127.0.0.1:", proxy))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without oauth2-proxy, the client gets an error", func() bool {
		res, err := client.Get("https://private.test/page")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode >= 500
	})
}
