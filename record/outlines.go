package record

import (
	"encoding/json"
	"slices"

	"github.com/drover-nomad/drover/nomad/variables"
)

// outlines is an item of a page: the outlines of its lines, in their order. It is
// not part of the lines, because it never changes while those are written again.
// Pages of older drovers have none.
type outlines struct {
	Spec   []json.RawMessage `json:"spec"`
	Before []json.RawMessage `json:"before"`
}

const outlinesItem = "outlines"

// outlinesLimit is the size, compressed, from which a page has no outlines: its
// lines need the room.
const outlinesLimit = blobLimit / 4

// OutlineOf returns the outline of the spec of that digest, nil if the line has
// none.
func (s Service) OutlineOf(digest string) json.RawMessage {
	switch digest {
	case "":
		return nil
	case s.Spec:
		return s.Outline
	case s.Before:
		return s.BeforeOutline
	}
	return nil
}

func hasOutlines(services []Service) bool {
	return slices.ContainsFunc(services, func(s Service) bool { return s.Outline != nil || s.BeforeOutline != nil })
}

// outlineItems are the items of a new page beside its lines.
func (r *Releases) outlineItems(services []Service) (map[string]string, error) {
	o := outlines{make([]json.RawMessage, len(services)), make([]json.RawMessage, len(services))}
	for i, s := range services {
		o.Spec[i], o.Before[i] = s.Outline, s.BeforeOutline
	}
	if !hasOutlines(services) {
		return nil, nil
	}
	text, err := r.packer.Pack(o)
	if err != nil || len(text) > outlinesLimit {
		return nil, err
	}
	return map[string]string{outlinesItem: text}, nil
}

// readOutlines gives the lines of a page their outlines. A page whose outlines
// cannot be read has none: a reader then needs the specs themselves.
func readOutlines(items map[string]string, services []Service) {
	var o outlines
	if text := items[outlinesItem]; text == "" || variables.Unpack(text, &o) != nil || len(o.Spec) != len(services) || len(o.Before) != len(services) {
		return
	}
	known := func(m json.RawMessage) json.RawMessage {
		if string(m) == "null" {
			return nil
		}
		return m
	}
	for i := range services {
		services[i].Outline, services[i].BeforeOutline = known(o.Spec[i]), known(o.Before[i])
	}
}

// dropOutlines removes the outlines of lines.
func dropOutlines(services []Service) []Service {
	for i := range services {
		services[i].Outline, services[i].BeforeOutline = nil, nil
	}
	return services
}
