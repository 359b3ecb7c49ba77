package acl

import (
	"encoding/pem"
	"strings"
	"testing"
)

func TestParseJWKS(t *testing.T) {
	t.Parallel()
	// n and e of RFC 7515, appendix A.2.1; the Ed25519 key of RFC 8037, A.2.
	const (
		rsa     = `{"kty":"RSA","use":"sig","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
		ed25519 = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	)
	for _, c := range []struct {
		name, set string
		keys      int
		err       string
	}{
		{"one", `{"keys":[` + rsa + `]}`, 1, ""},
		{"the other kind is left out", `{"keys":[` + ed25519 + `,` + rsa + `]}`, 1, ""},
		{"only the other kind", `{"keys":[` + ed25519 + `]}`, 0, "keyring rotate"},
		{"none", `{"keys":[]}`, 0, "no RSA key"},
		{"a broken one", `{"keys":[{"kty":"RSA","n":"","e":"AQAB"}]}`, 0, "no RSA key"},
		{"no JSON", `<html>`, 0, "reading Nomad's public keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			keys, err := parseJWKS([]byte(c.set))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || len(keys) != c.keys {
				t.Fatalf("%d keys, %v; want %d", len(keys), err, c.keys)
			}
			if b, _ := pem.Decode([]byte(keys[0])); b == nil || b.Type != "PUBLIC KEY" {
				t.Errorf("not a public key in PEM: %q", keys[0])
			}
		})
	}
}
