package record

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/drover-nomad/drover/nomad/variables"
	"github.com/drover-nomad/drover/stack"
)

// unknown is a JSON object with the members that this drover has no field for,
// because a newer drover wrote them. It is kept when the rest is rewritten, and
// "" if there are none.
type unknown string

// fieldsOf lists the JSON names of the fields of T in lower case, as
// encoding/json matches them without regard to case.
func fieldsOf[T any]() map[string]bool {
	out := map[string]bool{}
	t := reflect.TypeFor[T]()
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch name {
		case "-":
			continue
		case "":
			name = f.Name
		}
		out[strings.ToLower(name)] = true
	}
	return out
}

// decodeKnown decodes a JSON object into a struct with these fields, and
// returns the other members of the object.
func decodeKnown(text []byte, into any, fields map[string]bool) (unknown, error) {
	if err := json.Unmarshal(text, into); err != nil {
		return "", err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return "", err
	}
	for name := range all {
		if fields[strings.ToLower(name)] {
			delete(all, name)
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	rest, err := json.Marshal(all)
	return unknown(rest), err
}

// encodeKnown encodes a struct as a JSON object, followed by the members that
// decodeKnown kept.
func encodeKnown(v any, rest unknown) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil || rest == "" {
		return text, err
	}
	if string(text) == "{}" {
		return []byte(rest), nil
	}
	return append(append(text[:len(text)-1], ','), rest[1:]...), nil
}

// otherItems returns the items of a variable but for the layout number and
// those of these names.
func otherItems(items map[string]string, names ...string) map[string]string {
	var out map[string]string
	for name, text := range items {
		if name == variables.LayoutItem || slices.Contains(names, name) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = text
	}
	return out
}

var (
	releaseFields  = fieldsOf[Release]()
	waveFields     = fieldsOf[Wave]()
	serviceFields  = fieldsOf[Service]()
	holderFields   = fieldsOf[Holder]()
	pageFields     = fieldsOf[page]()
	runFields      = fieldsOf[Run]()
	scheduleFields = fieldsOf[stack.Schedule]()
)

// UnmarshalJSON keeps the members that this drover does not know.
func (r *Release) UnmarshalJSON(text []byte) (err error) {
	type plain Release
	r.unknown, err = decodeKnown(text, (*plain)(r), releaseFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (r Release) MarshalJSON() ([]byte, error) {
	type plain Release
	return encodeKnown(plain(r), r.unknown)
}

// UnmarshalJSON keeps the members that this drover does not know.
func (w *Wave) UnmarshalJSON(text []byte) (err error) {
	type plain Wave
	w.unknown, err = decodeKnown(text, (*plain)(w), waveFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (w Wave) MarshalJSON() ([]byte, error) {
	type plain Wave
	return encodeKnown(plain(w), w.unknown)
}

// UnmarshalJSON keeps the members that this drover does not know.
func (s *Service) UnmarshalJSON(text []byte) (err error) {
	type plain Service
	s.unknown, err = decodeKnown(text, (*plain)(s), serviceFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (s Service) MarshalJSON() ([]byte, error) {
	type plain Service
	return encodeKnown(plain(s), s.unknown)
}

// UnmarshalJSON keeps the members that this drover does not know.
func (h *Holder) UnmarshalJSON(text []byte) (err error) {
	type plain Holder
	h.unknown, err = decodeKnown(text, (*plain)(h), holderFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (h Holder) MarshalJSON() ([]byte, error) {
	type plain Holder
	return encodeKnown(plain(h), h.unknown)
}

// UnmarshalJSON keeps the members that this drover does not know.
func (p *page) UnmarshalJSON(text []byte) (err error) {
	type plain page
	p.unknown, err = decodeKnown(text, (*plain)(p), pageFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (p page) MarshalJSON() ([]byte, error) {
	type plain page
	return encodeKnown(plain(p), p.unknown)
}

// UnmarshalJSON keeps the members that this drover does not know.
func (r *Run) UnmarshalJSON(text []byte) (err error) {
	type plain Run
	r.unknown, err = decodeKnown(text, (*plain)(r), runFields)
	return err
}

// MarshalJSON writes the members that UnmarshalJSON kept, too.
func (r Run) MarshalJSON() ([]byte, error) {
	type plain Run
	return encodeKnown(plain(r), r.unknown)
}
