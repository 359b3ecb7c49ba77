package record

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/stack"
)

// Scrub removes secrets that older drovers recorded in clear: the credentials of
// the gates of releases that have ended, and the values of these variables. It
// returns the numbers of the releases that it rewrote. Where that was all, the
// newest release says so in Release.Scrubbed. The lock must be held.
func (r *Releases) Scrub(ctx context.Context, variables []string) ([]int, error) {
	heads, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	public := map[string]string{} // digests of values → of those without secrets
	for _, h := range heads {
		if h.Values == "" || len(variables) == 0 || public[h.Values] != "" {
			continue
		}
		digest, err := r.scrubValues(ctx, h.Values, variables)
		var broken *UnreadableError
		if err != nil && !errors.As(err, &broken) {
			return nil, err
		}
		public[h.Values] = digest
	}
	var scrubbed []int
	for _, h := range heads {
		changed := false
		if digest := public[h.Values]; digest != "" && digest != h.Values {
			h.Values, changed = digest, true
		}
		if !h.State.Open() && h.State != Unreadable && len(h.plan) == 0 { // which no older drover wrote
			for i, w := range h.Waves {
				gate, found, err := stack.ScrubWave(w.Gate)
				if err == nil && found { // what is no wave says so when it is used
					h.Waves[i].Gate, changed = gate, true
				}
			}
		}
		if !changed {
			continue
		}
		if err := r.Save(ctx, h); err != nil {
			return scrubbed, err
		}
		scrubbed = append(scrubbed, h.Number)
	}
	if err := r.noteScrubbed(ctx, heads, variables); err != nil || len(scrubbed) == 0 {
		return scrubbed, err
	}
	return scrubbed, r.collect(ctx, heads) // the values in clear
}

// noteScrubbed writes in the newest head that no release holds values of these
// variables any more. A release that is open or cannot be read may hold some.
func (r *Releases) noteScrubbed(ctx context.Context, heads []*Release, variables []string) error {
	may := func(h *Release) bool { return h.State.Open() || h.State == Unreadable }
	if len(heads) == 0 || heads[0].IsScrubbed(variables) || slices.ContainsFunc(heads, may) {
		return nil
	}
	heads[0].Scrubbed = append([]string{}, variables...)
	return r.Save(ctx, heads[0])
}

// scrubValues stores the values of a blob without those of variables, and returns
// the digest of the result.
func (r *Releases) scrubValues(ctx context.Context, digest string, variables []string) (string, error) {
	b, err := r.Blob(ctx, digest)
	if err != nil {
		return "", err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(b.Values, &values); err != nil {
		return "", &UnreadableError{r.blobPath(digest), err}
	}
	found := false
	for name := range values {
		// SERVICE.NAME, where a service declares it anew
		if slices.Contains(variables, name[strings.LastIndex(name, ".")+1:]) {
			delete(values, name)
			found = true
		}
	}
	if !found {
		return digest, nil
	}
	text, err := json.Marshal(values)
	if err != nil {
		return "", err
	}
	packed, err := Pack(Blob{Values: text})
	if err != nil {
		return "", err
	}
	return packed.Digest, r.Store(ctx, []Packed{packed}, nil)
}
