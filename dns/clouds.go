package dns

import (
	"github.com/libdns/digitalocean"
	"github.com/libdns/hetzner/v2"
)

// openDigitalOcean: its libdns provider knows records by identifiers, and gives no
// flags, priority or port, without which DigitalOcean takes no other types.
func openDigitalOcean(o Options) (Provider, error) {
	key, err := o.credential("DIGITALOCEAN_ACCESS_TOKEN")
	if err != nil {
		return nil, err
	}
	traits := libdnsTraits{read: true, minTTL: 30, types: []string{TypeA, TypeAAAA, TypeCNAME, TypeTXT}}
	return openLibdns(ProviderDigitalOcean, &digitalocean.Provider{APIToken: key.reveal()}, traits, key), nil
}

// openHetzner: its libdns provider puts quotes around texts, and removes them, but
// neither splits long ones nor escapes what is in them.
func openHetzner(o Options) (Provider, error) {
	key, err := o.credential("HCLOUD_TOKEN")
	if err != nil {
		return nil, err
	}
	traits := libdnsTraits{sets: true, minTTL: 60, encode: quoteTXT, decode: unquotedTXT}
	return openLibdns(ProviderHetzner, hetzner.New(key.reveal()), traits, key), nil
}

// unquotedTXT decodes a text in the form of zone files that lacks the first and the last
// quote.
func unquotedTXT(text string) string {
	if plain, err := unquoteTXT(`"` + text + `"`); err == nil {
		return plain
	}
	return text
}
