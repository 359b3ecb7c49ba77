package dns

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// Claim records that drover made a record.
type Claim struct {
	Zone    string    `json:"zone"`
	Since   time.Time `json:"since"`
	Adopted bool      `json:"adopted,omitempty"`
	// Pending is the digest of a record that is about to be written for the first
	// time; it is empty once the write is known to have worked. Until then the
	// claim covers only this content: a drover that dies in between neither loses
	// its record nor claims that of another program.
	Pending string `json:"pending,omitempty"`
	// Wrote is the digest of the values that drover last wrote or saw as it wants them,
	// "" if that is unknown, as in claims of older versions. Writing is that of values
	// that are about to replace them. Another program wrote any other value.
	Wrote   string `json:"wrote,omitempty"`
	Writing string `json:"writing,omitempty"`
	// Shared is true if other clusters may have values in the record. Mine are then
	// those that this one has, or is about to add; Left are those that it removed
	// lately, and when.
	Shared bool                 `json:"shared,omitempty"`
	Mine   []string             `json:"mine,omitempty"`
	Left   map[string]time.Time `json:"left,omitempty"`
	// Place is the provider that has the record, "" in claims of older versions.
	Place string `json:"place,omitempty"`
}

func (c Claim) covers(s Set) bool { return c.Pending == "" || c.Pending == digest(s) }

// changed reports whether another program has written s. A TTL alone does not count:
// providers raise and fix it.
func (c Claim) changed(s Set) bool {
	d := valuesDigest(s)
	return c.Pending == "" && c.Wrote != "" && c.Wrote != d && c.Writing != d
}

// settled reports whether the claim says that the change was made, and nothing else.
func (c Claim) settled(ch Change) bool {
	if ch.mine != nil {
		return c.Shared && slices.Equal(c.Mine, ch.mine)
	}
	s := *ch.New
	return !c.Shared && c.Pending == "" && c.Writing == "" && c.Wrote == valuesDigest(s)
}

func valuesDigest(s Set) string { return digest(Set{Values: s.Values}) }

func (c Claim) equal(o Claim) bool {
	return c.Zone == o.Zone && c.Pending == o.Pending && c.Wrote == o.Wrote && c.Writing == o.Writing && c.Adopted == o.Adopted && c.Since.Equal(o.Since) && c.Place == o.Place && c.equalShared(o)
}

func digest(s Set) string {
	text, _ := json.Marshal(Set{TTL: s.TTL, Values: s.Values}) // cannot fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Ownership is what one owner has claimed. Index is for check-and-set.
type Ownership struct {
	Claims map[Key]Claim
	Index  uint64
}

func (o Ownership) clone() Ownership {
	c := Ownership{Claims: map[Key]Claim{}, Index: o.Index}
	maps.Copy(c.Claims, o.Claims)
	return c
}

// Store keeps the claims of each owner.
type Store interface {
	// Load returns the claims of owner, none if nothing is stored.
	Load(ctx context.Context, owner string) (Ownership, error)
	// Save replaces the version with o.Index and returns the new index. It returns
	// ErrChanged if another process wrote meanwhile.
	Save(ctx context.Context, owner string, o Ownership) (uint64, error)
	// Others returns the claims of other stacks on records at this place, with the name
	// of their owner.
	Others(ctx context.Context, owner, place string) (map[Key]string, error)
}

// ErrChanged means that two drovers worked for one owner at the same time.
var ErrChanged = errors.New("another process changed the same records at the same time; try again")

// Layout of what NomadStore writes.
const Layout = 1

const (
	claimsItem = "_claims" // all of them, when they are too many to stand alone
	storeRoot  = "drover/dns/"
)

// NomadStore keeps one Nomad Variable for each owner, at drover/dns/OWNER,
// with an item for each record; several hundred records are packed into one
// item, since a variable holds 64 KiB.
type NomadStore struct{ Client *api.Client }

var notInPath = regexp.MustCompile(`[^a-zA-Z0-9_~/-]`)

func storePath(owner string) string { return ownerPath(storeRoot, owner) }

// ownerPath returns the path of the variable of an owner below a folder. A path of Nomad has no dots
// and at most 128 characters.
func ownerPath(folder, owner string) string {
	if of, block := StackOwner(owner); block != "" && !strings.Contains(block, "/") {
		return ownerPath(folder, of) + "/" + notInPath.ReplaceAllString(block, "~")
	}
	p := folder + notInPath.ReplaceAllString(owner, "~")
	if len(p) > 128 || p != folder+owner {
		sum := sha256.Sum256([]byte(owner))
		p = p[:min(len(p), 110)] + "~" + hex.EncodeToString(sum[:8])
	}
	return p
}

// Load implements [Store].
func (s NomadStore) Load(ctx context.Context, owner string) (Ownership, error) {
	return s.load(ctx, storePath(owner))
}

func (s NomadStore) load(ctx context.Context, path string) (Ownership, error) {
	o := Ownership{Claims: map[Key]Claim{}}
	v, err := peek(ctx, s.Client, path)
	if v == nil {
		return o, err
	}
	for item, text := range v.Items {
		if item == variables.LayoutItem {
			continue
		}
		if item == claimsItem {
			if err := unpack(text, o.Claims); err != nil {
				return o, fmt.Errorf("item %s of the variable %s is not readable: %w", item, path, err)
			}
			continue
		}
		typ, name, _ := strings.Cut(item, "/")
		var c Claim
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return o, fmt.Errorf("item %s of the variable %s is not readable: %w", item, path, err)
		}
		o.Claims[Key{name, typ}] = c
	}
	o.Index = v.ModifyIndex
	return o, nil
}

// peek returns the variable at path, nil if there is none.
func peek(ctx context.Context, client *api.Client, path string) (*api.Variable, error) {
	v, err := variables.Read(ctx, client, path)
	if v == nil {
		return nil, err
	}
	if err := variables.CheckLayout(v.Items[variables.LayoutItem], "the variable "+path, Layout); err != nil {
		return nil, err
	}
	return v, nil
}

// Save implements [Store].
func (s NomadStore) Save(ctx context.Context, owner string, o Ownership) (uint64, error) {
	v := &api.Variable{Path: storePath(owner), ModifyIndex: o.Index, Items: api.VariableItems{variables.LayoutItem: strconv.Itoa(Layout)}}
	size := 0
	for key, c := range o.Claims {
		text, err := json.Marshal(c)
		if err != nil {
			return 0, err
		}
		item := key.Type + "/" + key.Name
		v.Items[item] = string(text)
		size += len(item) + len(text)
	}
	if size > 48<<10 {
		packed, err := pack(o.Claims)
		if err != nil {
			return 0, err
		}
		v.Items = api.VariableItems{variables.LayoutItem: strconv.Itoa(Layout), claimsItem: packed}
		size = len(packed)
	}
	if size > variables.Limit-reserve {
		return 0, fmt.Errorf("%d DNS records of one owner are more than a Nomad Variable can note: split the stack", len(o.Claims))
	}
	out, err := variables.Write(ctx, s.Client, v, &api.WriteOptions{})
	if nomad.IsConflict(err) {
		return 0, ErrChanged
	}
	if err != nil {
		return 0, fmt.Errorf("noting which DNS records are drover's: %w", err)
	}
	return out.ModifyIndex, nil
}

// reserve is the part of a variable that is left for items of newer drovers.
const reserve = 512

// packed is a claim with its key.
type packed struct {
	Key
	Claim
}

func pack(claims map[Key]Claim) (string, error) {
	list := make([]packed, 0, len(claims))
	for _, key := range slices.SortedFunc(maps.Keys(claims), compareKeys) {
		list = append(list, packed{key, claims[key]})
	}
	return variables.Pack(list)
}

func unpack(text string, claims map[Key]Claim) error {
	var list []packed
	if err := variables.Unpack(text, &list); err != nil {
		return err
	}
	for _, p := range list {
		claims[p.Key] = p.Claim
	}
	return nil
}

// Others implements [Store].
func (s NomadStore) Others(ctx context.Context, owner, place string) (map[Key]string, error) {
	list, _, err := s.Client.Variables().PrefixList(storeRoot, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("listing whose DNS records are drover's: %w", err)
	}
	out := map[Key]string{}
	of, _ := StackOwner(owner)
	for _, meta := range list {
		if meta.Path == storePath(of) || strings.HasPrefix(meta.Path, storePath(of)+"/") {
			continue
		}
		o, err := s.load(ctx, meta.Path)
		if err != nil {
			return nil, err
		}
		for key, c := range o.Claims {
			if c.Pending == "" && samePlace(c.Place, place) {
				out[key] = strings.TrimPrefix(meta.Path, storeRoot)
			}
		}
	}
	return out, nil
}
