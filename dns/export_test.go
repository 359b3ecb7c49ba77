package dns

import "strings"

// LibdnsContract is for the tests of providers on real servers.
var (
	LibdnsContract = libdnsContract
	ToLibdns       = toLibdns
)

// OpenLibdns is the adapter with the traits of libdns/rfc2136, which returns the
// texts of TXT records with escapes.
func OpenLibdns(name string, p Provider, credential string, sets bool) Provider {
	return openLibdns(name, p, libdnsTraits{sets: sets, decode: unquotedTXT, minTTL: 1}, secret{strings.TrimSpace(credential)})
}
