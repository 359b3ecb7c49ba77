package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/drover-nomad/drover/devcluster/devtest"
)

// ocis is an HTTP client of one running oCIS.
type ocis struct {
	base string // https://HOST:PORT
	http *http.Client
}

// newOCIS trusts certificates of roots; nil stands for the proxy itself, whose
// certificate is self-signed.
func newOCIS(base string, roots *x509.CertPool) *ocis {
	return &ocis{base: base, http: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, InsecureSkipVerify: roots == nil}},
	}}
}

// login is a user name and a password; the zero value sends none.
type login struct{ user, password string }

var (
	einstein = login{"einstein", "relativity"}
	marie    = login{"marie", "radioactivity"}
)

// do sends one request and returns status and body.
func (o *ocis) do(ctx context.Context, as login, method, path string, header http.Header, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, o.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if as.user != "" {
		req.SetBasicAuth(as.user, as.password)
	}
	res, err := o.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// must is do with an expectation.
func (o *ocis) must(t testing.TB, want int, as login, method, path string, header http.Header, body []byte) []byte {
	t.Helper()
	status, b, err := o.do(t.Context(), as, method, path, header, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if status != want {
		t.Fatalf("%s %s: status %d, want %d: %.300s", method, path, status, want, b)
	}
	return b
}

// propfind reports whether a WebDAV request through the whole chain succeeds now.
func (o *ocis) propfind(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	status, _, err := o.do(ctx, einstein, "PROPFIND", "/remote.php/webdav/", nil, nil)
	return err == nil && status == http.StatusMultiStatus
}

// eventually waits until f returns true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	devtest.Until(t, 2*time.Minute, what, f)
}

func form(values ...string) (http.Header, []byte) {
	v := url.Values{}
	for i := 0; i < len(values); i += 2 {
		v.Set(values[i], values[i+1])
	}
	return http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(v.Encode())
}

const shares = "/ocs/v1.php/apps/files_sharing/api/v1/shares"

// share creates a share of path and returns its id and, for links, its token.
func (o *ocis) share(t testing.TB, values ...string) (id, token string) {
	t.Helper()
	header, body := form(values...)
	answer := o.must(t, http.StatusOK, einstein, "POST", shares+"?format=json", header, body)
	var res struct {
		OCS struct {
			Meta struct {
				StatusCode int
				Message    string
			}
			Data struct{ ID, Token string }
		}
	}
	if err := json.Unmarshal(answer, &res); err != nil {
		t.Fatalf("share: %v: %s", err, answer)
	}
	if res.OCS.Meta.StatusCode != 100 || res.OCS.Data.ID == "" {
		t.Fatalf("share: %s", answer)
	}
	return res.OCS.Data.ID, res.OCS.Data.Token
}

// testOCIS is everything that must work for a user.
func testOCIS(t *testing.T, o *ocis, admin login) {
	dir := fmt.Sprintf("/remote.php/webdav/e2e-%d", time.Now().UnixNano())
	name := strings.TrimPrefix(dir, "/remote.php/webdav")
	o.must(t, http.StatusCreated, einstein, "MKCOL", dir, nil, nil)
	o.must(t, http.StatusCreated, einstein, "PUT", dir+"/hello.txt", nil, []byte("hello\n"))

	t.Run("propfind", func(t *testing.T) {
		b := o.must(t, http.StatusMultiStatus, einstein, "PROPFIND", dir, http.Header{"Depth": {"1"}}, nil)
		if !bytes.Contains(b, []byte("hello.txt")) {
			t.Errorf("hello.txt is not listed: %.500s", b)
		}
	})
	t.Run("web page", func(t *testing.T) {
		b := o.must(t, http.StatusOK, login{}, "GET", "/", nil, nil)
		if !bytes.Contains(b, []byte("<title>ownCloud</title>")) {
			t.Errorf("the page is %.300s", b)
		}
	})
	t.Run("wrong password", func(t *testing.T) {
		o.must(t, http.StatusUnauthorized, login{"einstein", "wrong"}, "PROPFIND", "/remote.php/webdav/", nil, nil)
		o.must(t, http.StatusUnauthorized, login{}, "PROPFIND", "/remote.php/webdav/", nil, nil)
	})
	t.Run("64 MiB", func(t *testing.T) {
		data := make([]byte, 64<<20)
		_, _ = rand.New(rand.NewSource(1)).Read(data)
		o.must(t, http.StatusCreated, einstein, "PUT", dir+"/big", nil, data)
		got := o.must(t, http.StatusOK, einstein, "GET", dir+"/big", nil, nil)
		if sha256.Sum256(got) != sha256.Sum256(data) {
			t.Errorf("got %d bytes that differ from the %d sent", len(got), len(data))
		}
	})
	t.Run("move and delete", func(t *testing.T) {
		o.must(t, http.StatusCreated, einstein, "MKCOL", dir+"/a", nil, nil)
		o.must(t, http.StatusCreated, einstein, "PUT", dir+"/a/f", nil, []byte("f"))
		o.must(t, http.StatusCreated, einstein, "MOVE", dir+"/a", http.Header{"Destination": {o.base + dir + "/b"}}, nil)
		o.must(t, http.StatusNotFound, einstein, "GET", dir+"/a/f", nil, nil)
		o.must(t, http.StatusOK, einstein, "GET", dir+"/b/f", nil, nil)
		o.must(t, http.StatusNoContent, einstein, "DELETE", dir+"/b", nil, nil)
		o.must(t, http.StatusNotFound, einstein, "GET", dir+"/b/f", nil, nil)
	})
	t.Run("share with marie", func(t *testing.T) {
		id, _ := o.share(t, "shareType", "0", "path", name, "shareWith", "marie", "permissions", "1")
		o.must(t, http.StatusOK, marie, "POST", shares+"/pending/"+url.PathEscape(id)+"?format=json", nil, nil)
		eventually(t, "marie sees the share", func() bool {
			status, b, err := o.do(t.Context(), marie, "GET", "/remote.php/webdav/Shares"+name+"/hello.txt", nil, nil)
			return err == nil && status == http.StatusOK && string(b) == "hello\n"
		})
	})
	t.Run("public link", func(t *testing.T) {
		_, token := o.share(t, "shareType", "3", "path", name, "permissions", "1")
		if token == "" {
			t.Fatal("the link has no token")
		}
		got := o.must(t, http.StatusOK, login{}, "GET", "/remote.php/dav/public-files/"+token+"/hello.txt", nil, nil)
		if string(got) != "hello\n" {
			t.Errorf("downloaded %q", got)
		}
	})
	t.Run("thumbnail", func(t *testing.T) {
		img := image.NewRGBA(image.Rect(0, 0, 256, 256))
		for i := range 256 {
			img.Set(i, i, color.RGBA{R: 255, A: 255})
		}
		var buf bytes.Buffer
		if err := png.Encode(&buf, img); err != nil {
			t.Fatal(err)
		}
		o.must(t, http.StatusCreated, einstein, "PUT", dir+"/pic.png", nil, buf.Bytes())
		// oCIS gives the thumbnails service five seconds and answers 500 after
		// that, which the first picture can take on a busy machine: a client
		// asks again.
		var got []byte
		eventually(t, "oCIS answers with a preview", func() bool {
			status, b, err := o.do(t.Context(), einstein, "GET", "/remote.php/dav/files/einstein"+name+"/pic.png?preview=1&x=32&y=32&scalingup=0", nil, nil)
			got = b
			return err == nil && status == http.StatusOK
		})
		preview, _, err := image.Decode(bytes.NewReader(got))
		if err != nil {
			t.Fatalf("the preview is no image: %v", err)
		}
		if b := preview.Bounds(); b.Dx() > 64 || b.Dy() > 64 {
			t.Errorf("the preview is %v", b)
		}
	})
	t.Run("search", func(t *testing.T) {
		word := fmt.Sprintf("needle%d", time.Now().UnixNano())
		o.must(t, http.StatusCreated, einstein, "PUT", dir+"/"+word+".txt", nil, []byte("in the hay"))
		query := `<?xml version="1.0"?><oc:search-files xmlns:a="DAV:" xmlns:oc="http://owncloud.org/ns"><a:prop><oc:fileid/></a:prop><oc:search><oc:pattern>` + word + `</oc:pattern><oc:limit>10</oc:limit></oc:search></oc:search-files>`
		eventually(t, "the search finds the file", func() bool {
			status, b, err := o.do(t.Context(), einstein, "REPORT", "/remote.php/dav/files/einstein", nil, []byte(query))
			return err == nil && status == http.StatusMultiStatus && bytes.Contains(b, []byte(word))
		})
	})
	t.Run("graph users", func(t *testing.T) {
		b := o.must(t, http.StatusOK, admin, "GET", "/graph/v1.0/users", nil, nil)
		for _, user := range []string{"einstein", "marie"} {
			if !bytes.Contains(b, []byte(user)) {
				t.Errorf("%s is not listed: %.500s", user, b)
			}
		}
	})
	o.must(t, http.StatusNoContent, einstein, "DELETE", dir, nil, nil)
}
