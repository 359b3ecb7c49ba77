package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/acme/pki"
	"github.com/drover-nomad/drover/devcluster"
	"github.com/drover-nomad/drover/devcluster/devtest"
)

// outside is what TestOCISExternal runs beside oCIS.
type outside struct {
	ldap, ldapCA string // ldaps://HOST:PORT and the PEM text of its CA
	issuer       string // of OpenID Connect
	callback     string // the address to which the provider returns
	smtp, mails  string // port, and the directory of mails
	s3           string // http://HOST:PORT
}

const (
	ldapReader   = "cn=reader,dc=example,dc=org"
	ldapPassword = "reads-the-directory"
	bucket       = "cloud"
)

// The user of the provider (zitadel/oidc's example), who is in the directory too, and
// another one.
var (
	alice = login{"alice", "alice-in-ldap"}
	bob   = login{"bob", "bob-in-ldap"}
)

// TestOCISExternal runs oCIS without users, logins and files of its own: with OpenLDAP, a
// provider of OpenID Connect, a mail server and an object storage outside of the stack.
func TestOCISExternal(t *testing.T) {
	devtest.NeedsFull(t)
	t.Parallel()
	r := start(t, false)
	out := startOutside(t)
	port := freePort(t)
	domain := "127.0.0.1:" + port // without an edge, users come to the port of the proxy
	e := externalEnvironment(t, port, out)
	r.drover.env = append(r.drover.env, "NOMAD_VAR_domain="+domain)
	for name, value := range map[string]string{"reva_password": ldapPassword, "s3_access_key": "access", "s3_secret_key": "secret-of-s3"} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
		r.drover.must(t, "secrets", "set", "ocis", name, "-e", e, "--file", file)
	}
	began := time.Now()
	r.drover.must(t, "deploy", "ocis", "-e", e, "--no-certificates")
	t.Logf("deployed in %s", time.Since(began).Round(time.Second))
	o := newOCIS("https://"+domain, nil)
	propfind := func(as login, header http.Header) int {
		status, _, err := o.do(t.Context(), as, "PROPFIND", "/remote.php/webdav/", header, nil)
		if err != nil {
			return 0
		}
		return status
	}
	eventually(t, "a user of the directory logs in", func() bool { return propfind(alice, nil) == http.StatusMultiStatus })

	t.Run("LDAP", func(t *testing.T) {
		for name, c := range map[string]struct {
			as   login
			want int
		}{
			"a user":           {bob, http.StatusMultiStatus},
			"a wrong password": {login{bob.user, "wrong"}, http.StatusUnauthorized},
			"a demo user":      {einstein, http.StatusUnauthorized},
		} {
			if got := propfind(c.as, nil); got != c.want {
				t.Errorf("%s: status %d, want %d", name, got, c.want)
			}
		}
		// graph reads the directory too.
		var me struct{ DisplayName, Mail string }
		if b := o.must(t, http.StatusOK, bob, "GET", "/graph/v1.0/me", nil, nil); json.Unmarshal(b, &me) != nil || me.DisplayName != "Bob B." || me.Mail != "bob@example.org" {
			t.Errorf("graph returns %s for bob", b)
		}
	})
	t.Run("OpenID Connect", func(t *testing.T) {
		token := out.token(t, "test-user@localhost", "verysecure")
		header := http.Header{"Authorization": {"Bearer " + token}}
		if got := propfind(login{}, header); got != http.StatusMultiStatus {
			t.Errorf("with a token of the provider: status %d, want 207", got)
		}
		if got := propfind(login{}, http.Header{"Authorization": {"Bearer forged"}}); got != http.StatusUnauthorized {
			t.Errorf("with a forged token: status %d, want 401", got)
		}
		// The user of the token is the user of the directory.
		if b := o.must(t, http.StatusOK, login{}, "GET", "/graph/v1.0/me", header, nil); !bytes.Contains(b, []byte("Alice A.")) {
			t.Errorf("graph returns %s for the token of alice", b)
		}
		// Clients find the provider at oCIS.
		if b := o.must(t, http.StatusOK, login{}, "GET", "/.well-known/openid-configuration", nil, nil); !bytes.Contains(b, []byte(`"`+out.issuer+`"`)) {
			t.Errorf("oCIS announces the provider %s", b)
		}
	})
	t.Run("S3", func(t *testing.T) {
		data := bytes.Repeat([]byte("in the bucket\n"), 1<<16)
		o.must(t, http.StatusCreated, alice, "PUT", "/remote.php/webdav/kept.txt", nil, data)
		if got := o.must(t, http.StatusOK, alice, "GET", "/remote.php/webdav/kept.txt", nil, nil); !bytes.Equal(got, data) {
			t.Errorf("the file reads back with %d bytes, want %d", len(got), len(data))
		}
		if list := out.objects(t); !strings.Contains(list, fmt.Sprintf("<Size>%d</Size>", len(data))) {
			t.Errorf("the bucket has no object of %d bytes: %s", len(data), list)
		}
	})
	t.Run("mail", func(t *testing.T) {
		header, body := form("shareType", "0", "path", "/kept.txt", "shareWith", "bob", "permissions", "1")
		if b := o.must(t, http.StatusOK, alice, "POST", shares+"?format=json", header, body); !bytes.Contains(b, []byte(`"statuscode":100`)) {
			t.Fatalf("the share is not made: %s", b)
		}
		eventually(t, "bob gets a mail about the share", func() bool {
			for _, file := range glob(t, filepath.Join(out.mails, "new", "*")) {
				if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte("bob@example.org")) && bytes.Contains(text, []byte("cloud@example.org")) {
					return true
				}
			}
			return false
		})
	})
	t.Run("LDAP without OpenID Connect", func(t *testing.T) {
		r.drover.must(t, "deploy", "ocis", "-e", e, "--no-certificates", "-var", "oidc={}")
		logon := func(as login) bool {
			body := fmt.Sprintf(`{"params":[%q,%q,"1"],"state":"s"}`, as.user, as.password)
			header := http.Header{"Content-Type": {"application/json"}, "Kopano-Konnect-Xsrf": {"1"}, "Referer": {o.base + "/signin/v1/identifier"}}
			status, b, err := o.do(t.Context(), login{}, "POST", "/signin/v1/identifier/_/logon", header, []byte(body))
			var answer struct{ Success bool }
			return err == nil && status == http.StatusOK && json.Unmarshal(b, &answer) == nil && answer.Success
		}
		eventually(t, "the login page takes a user of the directory", func() bool { return logon(bob) })
		if logon(login{bob.user, "wrong"}) {
			t.Error("the login page takes a wrong password")
		}
	})
	if t.Failed() {
		logs, _, _ := r.drover.run(t.Context(), "logs", "ocis", "server", "--stderr", "-e", e)
		t.Logf("oCIS:\n%.8000s", logs)
	}
	r.drover.must(t, "destroy", "ocis", "-e", e, "-y")
}

// externalEnvironment writes an environment: that of the dev cluster, with what is
// outside, in one process whose port is that of the domain.
func externalEnvironment(t *testing.T, port string, out *outside) string {
	t.Helper()
	text, err := os.ReadFile("../../jobs/ocis/environments/dev.hcl")
	if err != nil {
		t.Fatal(err)
	}
	values := fmt.Sprintf(`
  layout     = "compact"
  demo_users = false
  ldap_ca    = %q
  ldap = {
    uri               = %q
    bind_dn           = %q
    user_base         = "ou=people,dc=example,dc=org"
    group_base        = "ou=groups,dc=example,dc=org"
    user_id           = "entryUUID"
    user_display_name = "displayName"
    group_id          = "entryUUID"
    writable          = "false"
  }
  oidc = { issuer = %q, user_claim = "email", cs3_claim = "mail", verify = "none" }
  smtp = { host = "127.0.0.1", port = %q, sender = "Cloud <cloud@example.org>" }
  s3   = { endpoint = %q, region = "default", bucket = %q }
`, out.ldapCA, out.ldap, ldapReader, out.issuer, out.smtp, out.s3, bucket)
	text = bytes.Replace(text, []byte("variables {\n"), []byte("variables {\n"+values), 1)
	text = bytes.Replace(text, []byte("  demo_users         = true\n"), nil, 1)
	text = fmt.Appendf(text, `
job "ocis-server" {
  group "*" {
    network {
      port "http" {
        static = %s
      }
    }
  }
}
`, port)
	file := filepath.Join(t.TempDir(), "external.hcl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func startOutside(t *testing.T) *outside {
	t.Helper()
	out := &outside{}
	out.startLDAP(t)

	port := freePort(t)
	out.issuer, out.callback = "http://localhost:"+port+"/", "https://cloud.test/oidc-callback"
	program(t, devcluster.OIDCServer, []string{"PORT=" + port, "REDIRECT_URI=" + out.callback})

	out.smtp, out.mails = freePort(t), filepath.Join(t.TempDir(), "mails")
	background(t, "/usr/bin/aiosmtpd", nil, "-n", "-l", "127.0.0.1:"+out.smtp, "-c", "aiosmtpd.handlers.Mailbox", out.mails)

	port = freePort(t)
	out.s3 = "http://127.0.0.1:" + port
	program(t, devcluster.S3Server, nil, "-host", "127.0.0.1:"+port, "-backend", "memory", "-initialbucket", bucket)

	eventually(t, "all answer", func() bool {
		for _, address := range []string{strings.TrimPrefix(out.ldap, "ldaps://"), strings.Trim(strings.TrimPrefix(out.issuer, "http://"), "/"), "127.0.0.1:" + out.smtp, "127.0.0.1:" + port} {
			conn, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return false
			}
			_ = conn.Close()
		}
		return true
	})
	return out
}

// startLDAP runs OpenLDAP in a directory of the test, with two users and the schemas that
// it comes with.
func (out *outside) startLDAP(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	now := time.Now()
	ca, key, err := pki.NewCA("CA of the directory", now)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM, err := pki.Sign(pki.Leaf{CommonName: "ldap", IPAddresses: []string{"127.0.0.1"}, Lifetime: time.Hour}, ca, key, now)
	if err != nil {
		t.Fatal(err)
	}
	out.ldapCA = pki.EncodeCertificate(ca.Raw)
	person := func(as login, name, mail string) string {
		return fmt.Sprintf("dn: uid=%[1]s,ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: %[1]s\ncn: %[2]s\nsn: %[2]s\ndisplayName: %[2]s\nmail: %[3]s\nuserPassword: %[4]s\n\n", as.user, name, mail, as.password)
	}
	files := map[string]string{
		"cert.pem": certPEM,
		"key.pem":  keyPEM,
		"slapd.conf": fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile %[1]s/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile %[1]s/cert.pem
TLSCertificateKeyFile %[1]s/key.pem
database mdb
maxsize 10485760
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
directory %[1]s/db
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
`, dir),
		"users.ldif": "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n" +
			"dn: ou=people,dc=example,dc=org\nobjectClass: organizationalUnit\nou: people\n\n" +
			"dn: ou=groups,dc=example,dc=org\nobjectClass: organizationalUnit\nou: groups\n\n" +
			"dn: " + ldapReader + "\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: reader\nuserPassword: " + ldapPassword + "\n\n" +
			person(alice, "Alice A.", "test-user@zitadel.ch") + person(bob, "Bob B.", "bob@example.org") +
			"dn: cn=all,ou=groups,dc=example,dc=org\nobjectClass: groupOfNames\ncn: all\nmember: uid=alice,ou=people,dc=example,dc=org\nmember: uid=bob,ou=people,dc=example,dc=org\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "slapd.conf")
	if b, err := exec.CommandContext(t.Context(), "/usr/sbin/slapadd", "-f", conf, "-l", filepath.Join(dir, "users.ldif")).CombinedOutput(); err != nil {
		t.Fatalf("slapadd (Debian's package slapd): %v\n%s", err, b)
	}
	out.ldap = "ldaps://127.0.0.1:" + freePort(t)
	background(t, "/usr/sbin/slapd", nil, "-d", "0", "-f", conf, "-h", out.ldap)
}

// token logs in at the provider as its client "web" and returns an access token.
func (out *outside) token(t *testing.T, user, password string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: time.Minute, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(req.URL.String(), out.callback) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	res, err := client.Get(out.issuer + ".well-known/openid-configuration")
	if err != nil {
		t.Fatal(err)
	}
	var endpoints struct {
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
	}
	err = json.NewDecoder(res.Body).Decode(&endpoints)
	_ = res.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	res, err = client.Get(endpoints.Authorization + "?" + url.Values{"client_id": {"web"}, "redirect_uri": {out.callback}, "response_type": {"code"}, "scope": {"openid profile email"}, "state": {"s"}}.Encode())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	at := res.Request.URL
	res, err = client.PostForm(at.Scheme+"://"+at.Host+at.Path, url.Values{"username": {user}, "password": {password}, "id": {at.Query().Get("authRequestID")}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	returned, err := res.Location()
	if err != nil {
		t.Fatalf("the login at %s ends with status %d, not with a redirect", at, res.StatusCode)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoints.Token, strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "code": {returned.Query().Get("code")}, "redirect_uri": {out.callback}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("web", "secret")
	res, err = client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var tokens struct {
		Access string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&tokens); err != nil || tokens.Access == "" {
		t.Fatalf("the provider gives no access token: status %d, %v", res.StatusCode, err)
	}
	return tokens.Access
}

// objects lists the bucket.
func (out *outside) objects(t *testing.T) string {
	t.Helper()
	res, err := http.Get(out.s3 + "/" + bucket + "?list-type=2")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
