package variables

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Pack returns v as JSON, compressed with gzip, in base64.
func Pack(v any) (string, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("compressing: %w", err)
	}
	return PackText(text.Bytes())
}

// PackText returns text compressed with gzip, in base64.
func PackText(text []byte) (string, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err := w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return "", fmt.Errorf("compressing: %w", err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// unpackLimit keeps a broken or hostile object from filling the memory.
const unpackLimit = 64 << 20

// Unpack decodes what Pack returned.
func Unpack(packed string, into any) error {
	text, err := UnpackText(packed)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// UnpackText decodes what PackText returned.
func UnpackText(packed string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, unpackLimit))
}
