package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	mdns "github.com/miekg/dns"
)

// normalizeValue returns the canonical form of a value of a record.
func normalizeValue(typ, v string) (string, error) {
	switch typ {
	case TypeA, TypeAAAA:
		ip, err := netip.ParseAddr(strings.TrimSpace(v))
		if err != nil {
			return "", fmt.Errorf("%q is not an address", v)
		}
		if ip.Zone() != "" || ip.Is4In6() || ip.Is4() != (typ == TypeA) {
			other := map[string]string{TypeA: "an IPv4", TypeAAAA: "an IPv6"}[typ]
			return "", fmt.Errorf("%q is not %s address", v, other)
		}
		return ip.String(), nil
	case TypeCNAME, TypeNS, TypePTR:
		return normalizeTarget(v)
	case TypeMX, TypeSRV, TypeHTTPS:
		return normalizeFields(typ, v)
	case TypeTXT:
		if v == "" {
			return "", errors.New("the text is empty")
		}
		if n := len(v) + (len(v)+254)/255; n > 65000 {
			return "", fmt.Errorf("the text is longer than a message can hold (%d bytes)", len(v))
		}
		return v, nil
	case TypeCAA:
		c, err := parseCAA(v)
		if err != nil {
			return "", err
		}
		return c.String(), nil
	}
	return v, nil
}

func normalizeTarget(v string) (string, error) {
	n, err := normalizeName(v)
	if err == nil && strings.HasPrefix(n, "*") {
		err = fmt.Errorf("%q: a target has no wildcard", v)
	}
	return n, err
}

// numbers returns how many numbers come before the target in a value of a type.
var numbers = map[string]int{TypeMX: 1, TypeSRV: 3, TypeHTTPS: 1}

var fieldsExample = map[string]string{
	TypeMX: "PREFERENCE TARGET, for example 10 mx.example.org", TypeSRV: "PRIORITY WEIGHT PORT TARGET, for example 0 5 5060 sip.example.org",
	TypeHTTPS: "PRIORITY TARGET [KEY=VALUE …], for example 1 . alpn=h2,h3",
}

// normalizeFields normalizes numbers that are followed by a target, and in an HTTPS
// record by parameters. The target is "." for none.
func normalizeFields(typ, v string) (string, error) {
	n := numbers[typ]
	fields := strings.Fields(v)
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("%q: %s; write %s", v, why, fieldsExample[typ])
	}
	if len(fields) < n+1 || typ != TypeHTTPS && len(fields) > n+1 {
		return bad(fmt.Sprintf("it has %d parts", len(fields)))
	}
	for i, f := range fields[:n] {
		number, err := strconv.ParseUint(f, 10, 16)
		if err != nil {
			return bad(f + " is not a number from 0 to 65535")
		}
		fields[i] = strconv.FormatUint(number, 10)
	}
	if fields[n] != "." {
		target, err := normalizeTarget(fields[n])
		if err != nil {
			return bad(err.Error())
		}
		fields[n] = target
	}
	if typ != TypeHTTPS || len(fields) == n+1 {
		return strings.Join(fields[:n+1], " "), nil
	}
	rr, err := mdns.NewRR(". 0 IN HTTPS " + fields[0] + " . " + strings.Join(fields[n+1:], " "))
	svcb, ok := rr.(*mdns.HTTPS)
	if err != nil || !ok {
		return bad("its parameters are not valid")
	}
	slices.SortFunc(svcb.Value, func(a, b mdns.SVCBKeyValue) int { return int(a.Key()) - int(b.Key()) })
	out := fields[:n+1]
	for _, p := range svcb.Value {
		text := p.String()
		switch {
		case text == "":
			text = p.Key().String()
		case strings.ContainsAny(text, " \t\";()"):
			text = p.Key().String() + `="` + text + `"`
		default: // PowerDNS takes no quotes around numbers
			text = p.Key().String() + "=" + text
		}
		out = append(out, text)
	}
	return strings.Join(out, " "), nil
}

// toZoneSyntax returns a value in the syntax of zone files.
func toZoneSyntax(typ, v string) string {
	switch typ {
	case TypeTXT:
		return quoteTXT(v)
	case TypeCNAME, TypeNS, TypePTR:
		return fqdn(v)
	case TypeMX, TypeSRV, TypeHTTPS:
		fields := strings.SplitN(v, " ", numbers[typ]+2)
		if n := numbers[typ]; len(fields) > n {
			fields[n] = fqdn(fields[n])
		}
		return strings.Join(fields, " ")
	}
	return v
}

func fromZoneSyntax(typ, content string) (string, error) {
	if typ == TypeTXT {
		return unquoteTXT(content)
	}
	if !slices.Contains(Types(), typ) {
		return content, nil
	}
	return normalizeValue(typ, content)
}

type caa struct {
	flags uint8
	tag   string
	value string
}

func (c caa) String() string { return fmt.Sprintf("%d %s %s", c.flags, c.tag, quoteChunk(c.value)) }

func parseCAA(v string) (caa, error) {
	var c caa
	bad := func(why string) (caa, error) {
		return c, fmt.Errorf(`%q: %s; write FLAGS TAG VALUE, for example 0 issue "letsencrypt.org"`, v, why)
	}
	v = strings.TrimSpace(v)
	flags, rest, _ := strings.Cut(v, " ")
	tag, value, ok := strings.Cut(strings.TrimSpace(rest), " ")
	if !ok {
		return bad("a CAA record has three parts")
	}
	n, err := strconv.ParseUint(flags, 10, 8)
	if err != nil {
		return bad("the flags are not a number from 0 to 255")
	}
	c.flags, c.tag = uint8(n), strings.ToLower(tag)
	for _, r := range c.tag {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return bad("the tag has letters and digits only")
		}
	}
	value = strings.TrimSpace(value)
	if !strings.HasPrefix(value, `"`) {
		c.value = value
		return c, nil
	}
	parts, err := parseStrings(value)
	if err != nil || len(parts) != 1 {
		return bad("the value is not one quoted text")
	}
	c.value = parts[0]
	return c, nil
}

// quoteTXT returns a text in the syntax of zone files: quoted chunks of at most 255
// bytes.
func quoteTXT(text string) string {
	var b strings.Builder
	for _, c := range chunks(text) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quoteChunk(c))
	}
	return b.String()
}

// chunks returns the parts of a text as they go over the wire.
func chunks(text string) []string {
	var out []string
	for len(text) > 255 {
		out = append(out, text[:255])
		text = text[255:]
	}
	return append(out, text)
}

func quoteChunk(s string) string { return `"` + escapeChunk(s) + `"` }

// escapeChunk writes everything that is not printable ASCII as \DDD.
func escapeChunk(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unquoteTXT returns the text of a TXT record in the syntax of zone files.
func unquoteTXT(content string) (string, error) {
	parts, err := parseStrings(content)
	return strings.Join(parts, ""), err
}

// parseStrings reads character-strings (RFC 1035, section 5.1), quoted or not.
func parseStrings(s string) ([]string, error) {
	var out []string
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out, nil
		}
		quoted := s[0] == '"'
		if quoted {
			s = s[1:]
		}
		var b strings.Builder
		closed := false
		for s != "" && !closed {
			switch c := s[0]; {
			case c == '\\':
				ch, n, err := unescape(s)
				if err != nil {
					return nil, err
				}
				b.WriteByte(ch)
				s = s[n:]
			case quoted && c == '"', !quoted && (c == ' ' || c == '\t'):
				closed = true
				s = s[1:]
			default:
				b.WriteByte(c)
				s = s[1:]
			}
		}
		if quoted && !closed {
			return nil, errors.New("a quote is not closed")
		}
		out = append(out, b.String())
	}
}

// unescape reads \DDD or \X at the start of s and returns its length.
func unescape(s string) (byte, int, error) {
	if len(s) < 2 {
		return 0, 0, errors.New("a backslash stands at the end")
	}
	if s[1] < '0' || s[1] > '9' {
		return s[1], 2, nil
	}
	if len(s) < 4 {
		return 0, 0, errors.New(`a \ with a digit needs three of them`)
	}
	n, err := strconv.ParseUint(s[1:4], 10, 8)
	if err != nil {
		return 0, 0, errors.New(`a \ with a digit needs three of them, up to 255`)
	}
	return byte(n), 4, nil
}
