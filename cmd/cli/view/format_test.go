package view

import (
	"testing"

	"github.com/drover-nomad/drover/dns"
)

func TestFormatSet(t *testing.T) {
	t.Parallel()
	on, off := true, false
	for _, tc := range []struct {
		set  dns.Set
		want string
	}{
		{dns.Set{TTL: 300, Values: []string{"192.0.2.1", "192.0.2.2"}}, "300s 192.0.2.1, 192.0.2.2"},
		{dns.Set{TTL: 60, Values: []string{"two words"}}, `60s "two words"`},
		{dns.Set{TTL: 300, Values: []string{"192.0.2.1"}, Proxied: &on}, "300s 192.0.2.1, proxied"},
		{dns.Set{TTL: 60, Values: []string{"192.0.2.1"}, Proxied: &off}, "60s 192.0.2.1"},
	} {
		if got := FormatSet(tc.set); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
