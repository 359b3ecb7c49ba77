package dns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/libdns/libdns"
)

// acmeDNSServer has the API of acme-dns 1.1: an update needs the account's user,
// key and subdomain, and a text as long as an answer to DNS-01.
func acmeDNSServer(t *testing.T) (string, map[string][]string) {
	t.Helper()
	texts := map[string][]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Subdomain, Txt string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/update":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("X-Api-User") != "user-"+in.Subdomain || r.Header.Get("X-Api-Key") != "key-"+in.Subdomain:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error": "forbidden", "key": %q}`, r.Header.Get("X-Api-Key"))
		case len(in.Txt) != 43:
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error": "bad_txt"}`)
		default:
			list := append(texts[in.Subdomain], in.Txt)
			texts[in.Subdomain] = list[max(0, len(list)-2):]
			fmt.Fprintf(w, `{"txt": %q}`, in.Txt)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, texts
}

func acmeDNSCredential(name, key string) string {
	return fmt.Sprintf(`{"username": "user-%s", "password": %q, "fulldomain": "%[1]s.auth.example.org", "subdomain": %[1]q, "allowfrom": []}`, name, key)
}

func TestACMEDNS(t *testing.T) {
	t.Parallel()
	url, texts := acmeDNSServer(t)
	credential := `{"a.example": ` + acmeDNSCredential("one", "key-one") + `, "b.example": ` + acmeDNSCredential("two", "another-key") + `}`
	p, err := Open(Options{Provider: ProviderACMEDNS, Server: url, CredentialSecret: "x"}.WithCredential(credential))
	if err != nil {
		t.Fatal(err)
	}
	add := func(name, text string) error {
		_, err := p.AppendRecords(t.Context(), "auth.example.org.", []libdns.Record{libdns.TXT{Name: name, Text: text}})
		return err
	}
	first, second := strings.Repeat("a", 43), strings.Repeat("b", 43)
	for _, text := range []string{first, second} { // NAME and *.NAME at once
		if err := add("one", text); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(texts["one"], []string{first, second}) {
		t.Errorf("got %q, want both answers", texts["one"])
	}
	if _, err := p.DeleteRecords(t.Context(), "auth.example.org.", []libdns.Record{libdns.TXT{Name: "one", Text: first}}); err != nil {
		t.Error(err)
	}
	for _, tc := range []struct {
		name, text, want string
		kind             Kind
	}{
		{"one", "short", "400 Bad Request", KindRefused},
		{"two", first, "does not accept the credential", KindDenied},
		{"three", first, "no account for three.auth.example.org TXT", KindRefused},
	} {
		err := add(tc.name, tc.text)
		if err == nil || !strings.Contains(err.Error(), tc.want) || kindOf(err) != tc.kind || strings.Contains(err.Error(), "another-key") {
			t.Errorf("%s: got %v, want %q without the key", tc.name, err, tc.want)
		}
	}
	if _, err := p.SetRecords(t.Context(), "auth.example.org.", nil); err == nil {
		t.Error("it takes records")
	}
	for _, bad := range []string{"", "key", "{}", `{"a": {"username": "x"}}`, acmeDNSCredential("", "x")} {
		if _, err := Open(Options{Provider: ProviderACMEDNS, Server: url, CredentialSecret: "x"}.WithCredential(bad)); err == nil {
			t.Errorf("opened with the credential %q", bad)
		}
	}
	if _, err := Open(Options{Provider: ProviderACMEDNS, CredentialSecret: "x"}.WithCredential(credential)); err == nil || !strings.Contains(err.Error(), "needs the URL") {
		t.Errorf("without a server: got %v", err)
	}
}
