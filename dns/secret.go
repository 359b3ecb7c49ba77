package dns

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// secret is a credential that is never printed.
type secret struct{ text string }

func (s secret) reveal() string             { return s.text }
func (secret) String() string               { return "(redacted)" }
func (secret) GoString() string             { return "(redacted)" }
func (secret) MarshalJSON() ([]byte, error) { return []byte(`"(redacted)"`), nil }
func (secret) LogValue() slog.Value         { return slog.StringValue("(redacted)") }

// redact removes the credential from the text of another program.
func (s secret) redact(text string) string {
	if len(s.text) < 4 {
		return text
	}
	return strings.ReplaceAll(text, s.text, "(redacted)")
}

func readSecret(name string) (secret, error) {
	f, err := os.Open(name)
	if err != nil {
		return secret{}, fmt.Errorf("reading the DNS credential: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return secret{}, fmt.Errorf("reading the DNS credential: %w", err)
	}
	s := secret{strings.TrimSpace(string(b))}
	if s.text == "" {
		return s, optionsf("the DNS credential file %s is empty", name)
	}
	return s, nil
}
