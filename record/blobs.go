package record

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/parallel"
)

// Digest names a text by its content: the first 160 bits of its SHA-256, in
// hexadecimal.
func Digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:20])
}

// Blob is something that releases share: a job spec, stored once however
// many releases have it, or the values of a release.
type Blob struct {
	Job    json.RawMessage `json:"job,omitempty"` // as PUT /v1/jobs takes it below "Job"
	HCL    string          `json:"hcl,omitempty"` // merged, as `nomad job run` takes it
	File   string          `json:"file,omitempty"`
	Values json.RawMessage `json:"values,omitempty"`
}

// blobLimit is what a Nomad Variable takes (64 KiB), less the layout.
const blobLimit = 64<<10 - 64

// Packed is a blob that can be stored.
type Packed struct {
	Digest string
	blob   Blob
}

// Blob returns what is stored.
func (p Packed) Blob() Blob { return p.blob }

// TooLargeError is the error of a blob that does not fit into a Nomad Variable. Size
// is in bytes.
type TooLargeError struct{ Size int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("it has %d KiB compressed and a Nomad Variable takes 64", (e.Size+1023)>>10)
}

// Pack makes a blob fit into a Nomad Variable: it leaves out the merged text if that
// does not fit beside the job. The digest is that of the job, or of the values. It
// returns a *TooLargeError if the blob does not fit at all.
func Pack(b Blob) (Packed, error) {
	p := Packed{Digest: Digest(b.Job), blob: b}
	if b.Job == nil {
		p.Digest = Digest(b.Values)
	}
	// A blob that fits even if it does not compress is compressed only when it is
	// stored: most blobs of a release are already stored.
	if base64.StdEncoding.EncodedLen(len(b.Job)+len(b.Values)+escaped*(len(b.HCL)+len(b.File))+1<<10) <= blobLimit {
		return p, nil
	}
	for {
		text, err := variables.Pack(p.blob)
		switch {
		case err != nil:
			return p, err
		case len(text) <= blobLimit:
			return p, nil
		case p.blob.HCL == "":
			return p, &TooLargeError{len(text)}
		}
		p.blob.HCL = ""
	}
}

// escaped is how many bytes JSON makes of one of a string, at most.
const escaped = 6

// Store writes the blobs that are not there yet, several at a time. stored are the
// digests of those that are, as Lock.Blobs returns them; nil if that is not known.
func (r *Releases) Store(ctx context.Context, blobs []Packed, stored map[string]bool) error {
	if len(blobs) == 0 {
		return nil
	}
	there := maps.Clone(stored)
	if there == nil {
		list, _, err := r.client.Variables().PrefixList(r.folder+"/blobs/", (&api.QueryOptions{}).WithContext(ctx))
		if err != nil {
			return fmt.Errorf("listing the job specs of stack %s: %w", r.stack, err)
		}
		there = map[string]bool{}
		for _, v := range list {
			there[strings.TrimPrefix(v.Path, r.folder+"/blobs/")] = true
		}
	}
	blobs = slices.DeleteFunc(slices.Clone(blobs), func(p Packed) bool {
		had := there[p.Digest]
		there[p.Digest] = true
		return had
	})
	return parallel.Each(len(blobs), 8, func(i int) error {
		text, err := r.packer.Pack(blobs[i].blob)
		if err != nil {
			return err
		}
		_, err = r.put(ctx, r.blobPath(blobs[i].Digest), map[string]string{"blob": text}, 0)
		if err != nil && !errors.Is(err, ErrTakenOver) { // another process has stored the same
			return fmt.Errorf("storing a job spec of stack %s: %w", r.stack, err)
		}
		return nil
	})
}

// Blob reads what Store wrote. It returns an *UnreadableError if the blob is
// missing, which is then an ErrMissing, or broken.
func (r *Releases) Blob(ctx context.Context, digest string) (Blob, error) {
	v, _, err := r.client.Variables().Peek(r.blobPath(digest), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return Blob{}, fmt.Errorf("reading %s: %w", r.blobPath(digest), err)
	}
	if v == nil {
		return Blob{}, &UnreadableError{r.blobPath(digest), ErrMissing}
	}
	return decodeBlob(v, digest)
}

func decodeBlob(v *api.Variable, digest string) (b Blob, err error) {
	err = checkLayout(v.Items[variables.LayoutItem], "the items of "+v.Path)
	if err == nil {
		err = variables.Unpack(v.Items["blob"], &b)
	}
	if err == nil && Digest(b.Job) != digest && Digest(b.Values) != digest {
		err = errContent
	}
	if err != nil {
		return b, &UnreadableError{v.Path, err}
	}
	return b, nil
}
