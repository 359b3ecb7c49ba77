package variables

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
)

// Pack returns v as JSON, compressed with gzip, in base64.
func Pack(v any) (string, error) {
	text, err := encode(v)
	if err != nil {
		return "", err
	}
	return PackText(text)
}

func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("compressing: %w", err)
	}
	return text.Bytes(), nil
}

// PackText returns text compressed with gzip, in base64.
func PackText(text []byte) (string, error) { return packText(gzip.NewWriter(nil), text) }

func packText(w *gzip.Writer, text []byte) (string, error) {
	var buf bytes.Buffer
	w.Reset(&buf)
	_, err := w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		return "", fmt.Errorf("compressing: %w", err)
	}
	return base64.StdEncoding.EncodeToString(buf.Bytes()), nil
}

// Packer packs values for many callers at once with as few compressors as there are
// processors: a compressor takes more than a megabyte. A caller that waits for one has
// not encoded its value yet, which takes memory too.
type Packer struct{ free chan *gzip.Writer }

// NewPacker returns a Packer without compressors, which it makes when they are needed.
func NewPacker() *Packer {
	p := &Packer{make(chan *gzip.Writer, runtime.GOMAXPROCS(0))}
	for range cap(p.free) {
		p.free <- nil
	}
	return p
}

// Pack returns what the function Pack returns. It waits for a compressor.
func (p *Packer) Pack(v any) (string, error) {
	w := <-p.free
	defer func() { p.free <- w }()
	text, err := encode(v)
	if err != nil {
		return "", err
	}
	if w == nil {
		w = gzip.NewWriter(nil)
	}
	return packText(w, text)
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
