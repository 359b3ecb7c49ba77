// Package secrets holds what a secret is, apart from where it is stored: values
// that no output shows, redaction, and the generation of values and certificates.
package secrets

import (
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

// Redacted is shown in place of a secret value.
const Redacted = "(redacted)"

// Value is a secret. Printing, logging or encoding it shows [Redacted]; only
// Reveal returns it.
type Value struct{ text string }

// NewValue makes a Value of a plain string.
func NewValue(s string) Value { return Value{s} }

// Reveal is the secret itself.
func (v Value) Reveal() string { return v.text }

func (Value) String() string { return Redacted }

// GoString returns Redacted, for %#v.
func (Value) GoString() string { return Redacted }

// MarshalJSON returns Redacted as a JSON string.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText returns Redacted.
func (Value) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue returns Redacted, for slog.
func (Value) LogValue() slog.Value { return slog.StringValue(Redacted) }

// Redactor replaces every occurrence of the values in a text. A PEM block is
// recognised by each of its lines. Values shorter than four characters are
// left alone: they are in every other word.
func Redactor(values ...Value) func(string) string {
	var old []string
	add := func(s string) {
		if s = strings.TrimSpace(s); len(s) >= 4 {
			old = append(old, s)
		}
	}
	for _, v := range values {
		add(v.text)
		add(url.QueryEscape(v.text))
		if strings.Contains(v.text, "\n") {
			for line := range strings.Lines(v.text) {
				if !strings.HasPrefix(line, "-----") {
					add(line)
				}
			}
		}
	}
	// The longest first: one value may be the beginning of another.
	slices.SortFunc(old, func(a, b string) int { return len(b) - len(a) })
	old = slices.Compact(old)
	pairs := make([]string, 0, 2*len(old))
	for _, s := range old {
		pairs = append(pairs, s, Redacted)
	}
	return strings.NewReplacer(pairs...).Replace
}
