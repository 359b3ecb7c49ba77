package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Environment of TestGivenOCIS: a binary of oCIS or OpenCloud that cannot be downloaded
// here, and its place in the catalog.
const (
	envGivenBinary  = "DROVER_OCIS_BINARY"
	envGivenLine    = "DROVER_OCIS_LINE"    // 2.0 when not set
	envGivenFlavour = "DROVER_OCIS_FLAVOUR" // ocis when not set
	envGivenDriver  = "DROVER_OCIS_DRIVER"  // storage_driver; that of the flavour when not set
)

// TestGivenOCIS deploys the line of a given binary and uses it.
func TestGivenOCIS(t *testing.T) {
	t.Parallel()
	binary := os.Getenv(envGivenBinary)
	if binary == "" {
		t.Skip(envGivenBinary + " names no binary")
	}
	user, other := einstein, "marie"
	vars := []string{"-e", "dev", "--no-certificates", "-var", "binary=" + binary}
	for variable, name := range map[string]string{"line": envGivenLine, "flavour": envGivenFlavour, "storage_driver": envGivenDriver} {
		if value := os.Getenv(name); value != "" {
			vars = append(vars, "-var", variable+"="+value)
		}
	}
	if os.Getenv(envGivenFlavour) == "opencloud" {
		user, other = login{"alan", "demo"}, "lynn"
	}
	r := start(t, false)
	began := time.Now()
	r.drover.must(t, append([]string{"deploy", "ocis"}, vars...)...)
	t.Logf("deployed in %s", time.Since(began).Round(time.Second))
	admin := login{"admin", strings.TrimSpace(r.drover.must(t, "secrets", "show", "ocis", "admin_password", "-e", "dev"))}
	o, dir := r.ocis, "/remote.php/webdav/given"
	propfind := func() bool {
		status, _, err := o.do(t.Context(), user, "PROPFIND", "/remote.php/webdav/", nil, nil)
		return err == nil && status == http.StatusMultiStatus
	}
	eventually(t, "the PROPFIND works", propfind)

	o.must(t, http.StatusUnauthorized, login{user.user, "wrong"}, "PROPFIND", "/remote.php/webdav/", nil, nil)
	o.must(t, http.StatusCreated, user, "MKCOL", dir, nil, nil)
	t.Run("64 MiB", func(t *testing.T) {
		data := make([]byte, 64<<20)
		_, _ = rand.New(rand.NewSource(1)).Read(data)
		o.must(t, http.StatusCreated, user, "PUT", dir+"/big", nil, data)
		// The newer lines handle an upload after they have answered.
		eventually(t, "the file reads back", func() bool {
			status, got, err := o.do(t.Context(), user, "GET", dir+"/big", nil, nil)
			return err == nil && status == http.StatusOK && sha256.Sum256(got) == sha256.Sum256(data)
		})
	})
	t.Run("move and delete", func(t *testing.T) {
		o.must(t, http.StatusCreated, user, "MKCOL", dir+"/a", nil, nil)
		o.must(t, http.StatusCreated, user, "MOVE", dir+"/a", http.Header{"Destination": {o.base + dir + "/b"}}, nil)
		o.must(t, http.StatusNoContent, user, "DELETE", dir+"/b", nil, nil)
	})
	t.Run("search", func(t *testing.T) {
		word := fmt.Sprintf("needle%d", time.Now().UnixNano())
		o.must(t, http.StatusCreated, user, "PUT", dir+"/"+word+".txt", nil, []byte("in the hay"))
		query := `<?xml version="1.0"?><oc:search-files xmlns:a="DAV:" xmlns:oc="http://owncloud.org/ns"><a:prop><oc:fileid/></a:prop><oc:search><oc:pattern>` + word + `</oc:pattern><oc:limit>10</oc:limit></oc:search></oc:search-files>`
		eventually(t, "the search finds the file", func() bool {
			status, b, err := o.do(t.Context(), user, "REPORT", "/remote.php/dav/files/"+user.user, nil, []byte(query))
			return err == nil && status == http.StatusMultiStatus && bytes.Contains(b, []byte(word))
		})
	})
	t.Run("graph users", func(t *testing.T) {
		b := o.must(t, http.StatusOK, admin, "GET", "/graph/v1.0/users", nil, nil)
		for _, name := range []string{user.user, other} {
			if !bytes.Contains(b, []byte(name)) {
				t.Errorf("%s is not listed: %.500s", name, b)
			}
		}
	})
	o.must(t, http.StatusNoContent, user, "DELETE", dir, nil, nil)
	r.drover.must(t, append([]string{"check", "ocis", "--retry-for", "60s"}, vars[:2]...)...)
	r.drover.must(t, "destroy", "ocis", "-e", "dev", "-y")
}
