package dns

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// normalizeName gives a complete name its one form: lower case, IDNA-encoded,
// no trailing dot. "*" may be the first label; a label may begin with "_".
func normalizeName(name string) (string, error) {
	name = strings.TrimSuffix(strings.TrimSpace(name), ".")
	if name == "" {
		return "", errors.New("the name is empty")
	}
	// RFC 3490: these are dots too.
	name = strings.NewReplacer("。", ".", "．", ".", "｡", ".").Replace(name)
	labels := strings.Split(name, ".")
	for i, l := range labels {
		switch {
		case l == "":
			return "", fmt.Errorf("%q has an empty part", name)
		case l == "*":
			if i > 0 {
				return "", fmt.Errorf("%q: a wildcard * can only be the first part", name)
			}
			continue
		case strings.Contains(l, "_"):
			// Not a host name, but what _acme-challenge, _dmarc and SRV use.
			for _, c := range []byte(l) {
				if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
					return "", fmt.Errorf("%q: the part %q has a character that names cannot have", name, l)
				}
			}
			labels[i] = strings.ToLower(l)
		default:
			ascii, err := idna.Lookup.ToASCII(l)
			if err == nil { // text that is not UTF-8 has no encoding that is a name
				_, err = idna.Lookup.ToASCII(ascii)
			}
			if err != nil || ascii == "" { // nothing is left of invisible characters
				return "", fmt.Errorf("%q: the part %q is not a valid name", name, l)
			}
			labels[i] = ascii
		}
		if len(labels[i]) > 63 {
			return "", fmt.Errorf("%q: the part %q is longer than 63 characters", name, l)
		}
	}
	out := strings.Join(labels, ".")
	if len(out) > 253 {
		return "", fmt.Errorf("%q is longer than 253 characters", name)
	}
	return out, nil
}

func normalizeZone(zone string) (string, error) {
	z, err := normalizeName(zone)
	if err == nil && strings.HasPrefix(z, "*") {
		err = fmt.Errorf("%q: a zone has no wildcard", zone)
	}
	return z, err
}

// completeName is name with its zone. Without a zone it must be complete.
func completeName(name, zone string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "@" {
		if zone == "" {
			return "", errors.New(`"@" needs a zone`)
		}
		return zone, nil
	}
	n, err := normalizeName(name)
	switch {
	case err != nil:
		return "", err
	case zone == "" || inZone(n, zone):
		return n, nil
	case strings.HasSuffix(name, "."):
		return "", fmt.Errorf("%s is not in its zone %s", n, zone)
	}
	return normalizeName(n + "." + zone)
}

func inZone(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// zoneOf is the most specific of zones that name is in, "" when there is none.
func zoneOf(name string, zones []string) string {
	best := ""
	for _, z := range zones {
		if inZone(name, z) && len(z) > len(best) {
			best = z
		}
	}
	return best
}
