package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testBackup saves a running oCIS, removes it with its data, secrets and history, and
// restores it into what is an empty cluster.
func testBackup(t *testing.T, r *running, admin login, values ...string) {
	repository := filepath.Join(r.DataDir(), "ocis-backup")
	values = append([]string{"-e", "dev", "-var", fmt.Sprintf("backup={repository=%q}", repository)}, values...)
	r.drover.must(t, append([]string{"deploy", "ocis"}, values...)...)

	const dir = "/remote.php/webdav/saved"
	r.ocis.must(t, http.StatusCreated, einstein, "MKCOL", dir, nil, nil)
	// A user's directory of that name is not the one with the contents of files.
	r.ocis.must(t, http.StatusCreated, einstein, "MKCOL", dir+"/blobs", nil, nil)
	sums := map[string][sha256.Size]byte{}
	random := rand.New(rand.NewSource(1))
	for name, size := range map[string]int{"/empty": 0, "/small": 100, "/blobs/inner": 5000, "/large": 9 << 20} {
		data := make([]byte, size)
		_, _ = random.Read(data)
		r.ocis.must(t, http.StatusCreated, einstein, "PUT", dir+name, nil, data)
		sums[dir+name] = sha256.Sum256(data)
	}
	id, _ := r.ocis.share(t, "shareType", "0", "path", "/saved", "shareWith", "marie", "permissions", "1")
	r.ocis.must(t, http.StatusOK, marie, "POST", shares+"/pending/"+url.PathEscape(id)+"?format=json", nil, nil)
	_, token := r.ocis.share(t, "shareType", "3", "path", "/saved", "permissions", "1")
	user := login{"ada", "a-password-of-her-own"}
	r.ocis.must(t, http.StatusOK, admin, "POST", "/graph/v1.0/users", http.Header{"Content-Type": {"application/json"}},
		[]byte(`{"onPremisesSamAccountName":"ada","displayName":"Ada","mail":"ada@example.org","passwordProfile":{"password":"`+user.password+`"}}`))

	job, _, err := r.nomad.Jobs().Info("ocis-backup", nil)
	if err != nil {
		t.Fatal(err)
	}
	parts := len(job.TaskGroups)
	// The parts run at once, in an order of Nomad's.
	if _, _, err := r.nomad.Jobs().PeriodicForce("ocis-backup", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("%d parts are saved", parts), func() bool {
		children, _, err := r.nomad.Jobs().PrefixList("ocis-backup/")
		if err != nil {
			t.Fatal(err)
		}
		complete := 0
		for _, c := range children {
			for part, s := range c.JobSummary.Summary {
				if s.Failed > 0 {
					t.Fatalf("saving %s failed", part)
				}
				complete += s.Complete
			}
		}
		return complete == parts
	})
	kept := filepath.Join(t.TempDir(), "secrets.yaml")
	r.drover.must(t, append([]string{"secrets", "export", "ocis", "--out", kept}, values...)...)

	r.drover.must(t, "destroy", "ocis", "-e", "dev", "-y", "--purge", "secrets,history")
	vars, _, err := r.nomad.Variables().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		if strings.HasPrefix(v.Path, "nomad/jobs/ocis-") || strings.HasPrefix(v.Path, "drover/stacks/ocis/") {
			t.Errorf("the Nomad Variable %s is left", v.Path)
		}
	}
	for _, dir := range glob(t, filepath.Join(r.DataDir(), "ocis-*")) {
		if dir != repository {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}

	r.drover.must(t, append([]string{"secrets", "import", "ocis", kept}, values...)...)
	r.drover.must(t, append([]string{"deploy", "ocis", "-var", "restore=latest"}, values...)...)
	eventually(t, "the PROPFIND works", func() bool { return r.ocis.propfind(t.Context()) })
	for name, want := range sums {
		if got := r.ocis.must(t, http.StatusOK, einstein, "GET", name, nil, nil); sha256.Sum256(got) != want {
			t.Errorf("%s: got %d bytes of other contents", name, len(got))
		}
		path := strings.TrimPrefix(name, dir)
		if got := r.ocis.must(t, http.StatusOK, login{}, "GET", "/remote.php/dav/public-files/"+token+path, nil, nil); sha256.Sum256(got) != want {
			t.Errorf("%s by the public link: got %d bytes of other contents", path, len(got))
		}
	}
	r.ocis.must(t, http.StatusOK, marie, "GET", "/remote.php/webdav/Shares/saved/small", nil, nil)
	r.ocis.must(t, http.StatusMultiStatus, user, "PROPFIND", "/remote.php/webdav/", nil, nil)
	if now := strings.TrimSpace(r.drover.must(t, append([]string{"secrets", "show", "ocis", "admin_password"}, values...)...)); now != admin.password {
		t.Error("the password of the administrator is another one")
	}

	// A restore never writes over data.
	_, errs, code := r.drover.run(t.Context(), append([]string{"deploy", "ocis", "-var", "restore=1"}, values...)...)
	if code == 0 || !strings.Contains(errs, "is not empty: a restore writes into empty volumes only") {
		t.Errorf("a restore over data: exit code %d\n%s", code, errs)
	}
	eventually(t, "the PROPFIND works", func() bool { return r.ocis.propfind(t.Context()) })
}
