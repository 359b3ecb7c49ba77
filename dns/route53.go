package dns

import (
	"strings"

	"github.com/libdns/route53"
)

// openRoute53 takes a credential ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN], or
// without one those that every AWS program finds: environment, shared
// configuration, instance role.
func openRoute53(o Options) (Provider, error) {
	p := &route53.Provider{}
	if o.CredentialSecret+o.CredentialFile+o.CredentialEnv == "" && o.given.text == "" {
		return openLibdns(ProviderRoute53, p, libdnsTraits{sets: true}, secret{}), nil
	}
	key, err := o.credential("")
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(key.reveal(), ":", 3)
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return nil, optionsf("the credential of the DNS provider route53 is not ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]")
	}
	p.AccessKeyId, p.SecretAccessKey, p.Region = parts[0], parts[1], "us-east-1"
	if len(parts) == 3 {
		p.SessionToken = parts[2]
	}
	return openLibdns(ProviderRoute53, p, libdnsTraits{sets: true}, key), nil
}
