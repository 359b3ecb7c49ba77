package route

import "testing"

func TestParse(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]struct {
		Tag
		host string
		ok   bool
	}{
		"drover.route=cloud.example.org/app":                           {Tag{Kind: HTTP, From: "cloud.example.org/app"}, "cloud.example.org", true},
		"drover.redirect=www.example.org/ 301 https://example.org/a b": {Tag{Redirect, "www.example.org/", 301, "https://example.org/a b"}, "www.example.org", true},
		"drover.redirect=www.example.org/":                             {Tag{Kind: Redirect, From: "www.example.org/"}, "www.example.org", true},
		"drover.redirect=www.example.org/ soon":                        {Tag{Kind: Redirect, From: "www.example.org/"}, "www.example.org", true},
		"drover.tcp=636":                                               {Tag{Kind: TCP, From: "636"}, "", true},
		"drover.sni=mail.example.org":                                  {Tag{Kind: SNI, From: "mail.example.org"}, "mail.example.org", true},
		"drover.route=":                                                {Tag{Kind: HTTP}, "", true},
		"drover.route":                                                 {},
		"drover.auth=admins":                                           {},
		"route=cloud.example.org/":                                     {},
		"traefik.route=example.org/":                                   {},
		"":                                                             {},
	} {
		got, ok := Parse(tag)
		if got != want.Tag || ok != want.ok {
			t.Errorf("%q: got %+v, %t, want %+v, %t", tag, got, ok, want.Tag, want.ok)
		}
		if host := got.Host(); host != want.host {
			t.Errorf("%q: got host %q, want %q", tag, host, want.host)
		}
	}
}
