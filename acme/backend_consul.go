package acme

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	capi "github.com/hashicorp/consul/api"

	"github.com/drover-nomad/drover/nomad/variables"
)

// SealKey is what objects in Consul are encrypted with: with its first key. All its
// keys decrypt, so that a key can be rotated.
type SealKey struct{ aeads []cipher.AEAD }

// NewSealKey takes 32 bytes as they are, or one key a line in base64: the first
// encrypts, the others are older.
func NewSealKey(text []byte) (SealKey, error) {
	if len(text) == 32 {
		aead, err := newAEAD(text)
		return SealKey{[]cipher.AEAD{aead}}, err
	}
	var k SealKey
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		if err != nil || len(raw) != 32 {
			return SealKey{}, fmt.Errorf("line %d of the seal key is no key: it must be 32 random bytes, or these in base64 (`openssl rand -base64 32`), one key a line", i+1)
		}
		aead, err := newAEAD(raw)
		if err != nil {
			return SealKey{}, err
		}
		k.aeads = append(k.aeads, aead)
	}
	return k, nil
}

func newAEAD(raw []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("making the seal: %w", err)
	}
	// The standard library's nonce of 96 random bits is good for 2^32 writes.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making the seal: %w", err)
	}
	return aead, nil
}

// itemSealed is the version of a sealed object, in its sealed text: milliseconds
// since 1970 at the time of the write, or more. Objects of older programs have none.
const itemSealed = "sealed_version"

func (k SealKey) seal(path string, items Items, version uint64) ([]byte, error) {
	all := map[string]string{itemSealed: strconv.FormatUint(version, 10)}
	maps.Copy(all, items)
	text, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return k.aeads[0].Seal(nil, nil, text, []byte(path)), nil // #nosec G407 -- the AEAD makes its own nonce
}

func (k SealKey) open(path string, sealed []byte) (items Items, version uint64, err error) {
	for _, aead := range k.aeads {
		text, err := aead.Open(nil, nil, sealed, []byte(path))
		if err != nil {
			continue
		}
		if json.Unmarshal(text, &items) != nil {
			return nil, 0, errors.New("it is not JSON")
		}
		if v, is := items[itemSealed]; is {
			if version, err = strconv.ParseUint(v, 10, 64); err != nil {
				return nil, 0, errors.New("its version is no number")
			}
			delete(items, itemSealed)
		}
		return items, version, nil
	}
	return nil, 0, errors.New("it was not sealed with this key, or was changed since")
}

// ConsulKV keeps objects in Consul's KV store, sealed with AES-256-GCM and
// bound to their path: a reader of Consul learns nothing, and a writer cannot
// swap two objects. A Backend that has read or written an object refuses an older
// one at the same path, which a writer of Consul has put back.
func ConsulKV(client *capi.Client, key SealKey) Backend {
	return &consulBackend{client: client, key: key, versions: map[string]uint64{}}
}

type consulBackend struct {
	client *capi.Client
	key    SealKey

	mu       sync.Mutex
	versions map[string]uint64 // path → newest that was read or written
}

func (b *consulBackend) newest(path string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.versions[path]
}

func (b *consulBackend) saw(path string, version uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.versions[path] = max(b.versions[path], version)
}

func (*consulBackend) Name() string { return "Consul KV" }

func (b *consulBackend) Get(ctx context.Context, path string) (Items, string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	newest := b.newest(path) // before the request: another may write meanwhile
	pair, _, err := b.client.KV().Get(path, (&capi.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err != nil {
		return nil, "", storeError(b, err, "reading %s", path)
	}
	if pair == nil {
		return nil, "", ErrNotFound
	}
	items, sealed, err := b.key.open(path, pair.Value)
	switch {
	case err != nil:
		return nil, "", storeError(b, err, "reading %s", path)
	case sealed < newest:
		return nil, "", storeError(b, fmt.Errorf("an old object was written back (version %d after %d); if an operator restored Consul from a snapshot, restart drover", sealed, newest), "reading %s", path)
	}
	b.saw(path, sealed)
	return items, strconv.FormatUint(pair.ModifyIndex, 10), nil
}

func (b *consulBackend) Put(ctx context.Context, path string, items Items, version string) (string, error) {
	sealed := max(uint64(time.Now().UnixMilli()), b.newest(path)+1) // #nosec G115 -- after 1970
	value, err := b.key.seal(path, items, sealed)
	if err != nil {
		return "", storeError(b, err, "encoding %s", path)
	}
	out, err := b.checked(ctx, &capi.KVTxnOp{Verb: capi.KVCAS, Key: path, Value: value}, version)
	if err != nil {
		return "", storeError(b, err, "writing %s", path)
	}
	b.saw(path, sealed)
	return strconv.FormatUint(out.Results[0].ModifyIndex, 10), nil
}

func (b *consulBackend) checked(ctx context.Context, op *capi.KVTxnOp, version string) (*capi.KVTxnResponse, error) {
	if version != "" {
		var err error
		if op.Index, err = strconv.ParseUint(version, 10, 64); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	ok, out, _, err := b.client.KV().Txn(capi.KVTxnOps{op}, (&capi.QueryOptions{}).WithContext(ctx)) //nolint:staticcheck // one operation; Txn of the whole client has no easier form
	switch {
	case err != nil:
		return nil, err
	case !ok && len(out.Errors) > 0 && !strings.Contains(out.Errors[0].What, "index is stale"):
		return nil, errors.New(out.Errors[0].What)
	case !ok:
		return nil, ErrConflict
	}
	return out, nil
}

func (b *consulBackend) Delete(ctx context.Context, path, version string) error {
	_, err := b.checked(ctx, &capi.KVTxnOp{Verb: capi.KVDeleteCAS, Key: path}, version)
	return storeError(b, err, "deleting %s", path)
}

func (b *consulBackend) List(ctx context.Context, folder string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	keys, _, err := b.client.KV().Keys(folder+"/", "", (&capi.QueryOptions{}).WithContext(ctx))
	return keys, storeError(b, err, "listing %s", folder)
}

func (b *consulBackend) Lock(ctx context.Context, path string, ttl time.Duration) (Lease, error) {
	rctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	w := (&capi.WriteOptions{}).WithContext(rctx)
	id, _, err := b.client.Session().CreateNoChecks(&capi.SessionEntry{
		Name: "drover " + path, TTL: max(ttl, 10*time.Second).String(), LockDelay: time.Second, Behavior: capi.SessionBehaviorDelete,
	}, w)
	if err != nil {
		return nil, storeError(b, err, "opening a session for %s", path)
	}
	host, _ := os.Hostname()
	ok, _, err := b.client.KV().Acquire(&capi.KVPair{Key: path, Session: id, Value: []byte(host + "/" + strconv.Itoa(os.Getpid()))}, w)
	if err != nil || !ok {
		_, _ = b.client.Session().Destroy(id, w)
		if err == nil {
			err = ErrLocked
		}
		return nil, storeError(b, err, "locking %s", path)
	}
	l := &consulLease{b: b, path: path, id: id, stop: make(chan struct{}), lost: make(chan struct{})}
	// #nosec G118 -- the lease outlives the request that took it
	go variables.KeepLease(ttl, l.renew, func(err error) bool { return errors.Is(err, capi.ErrSessionExpired) }, l.stop, l.lost)
	return l, nil
}

type consulLease struct {
	b          *consulBackend
	path, id   string
	once       sync.Once
	stop, lost chan struct{}
}

func (l *consulLease) renew(ctx context.Context) error {
	entry, _, err := l.b.client.Session().Renew(l.id, (&capi.WriteOptions{}).WithContext(ctx))
	if err == nil && entry == nil {
		err = capi.ErrSessionExpired
	}
	return err
}

func (l *consulLease) Lost() <-chan struct{} { return l.lost }

func (l *consulLease) Release(ctx context.Context) error {
	l.once.Do(func() { close(l.stop) })
	<-l.lost
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	w := (&capi.WriteOptions{}).WithContext(ctx)
	// Released before the session ends: no lock delay for the next one.
	if _, _, err := l.b.client.KV().Release(&capi.KVPair{Key: l.path, Session: l.id}, w); err != nil {
		return storeError(l.b, err, "releasing %s", l.path)
	}
	_, err := l.b.client.Session().Destroy(l.id, w)
	return storeError(l.b, err, "releasing %s", l.path)
}
