package variables

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestPack(t *testing.T) {
	t.Parallel()
	type object struct{ Name string }
	packed, err := Pack(object{"a<b>&c"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := UnpackText(packed)
	if want := `{"Name":"a<b>&c"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("got %q, %v, want %q", text, err, want)
	}
	var got object
	if err := Unpack(packed, &got); err != nil || got.Name != "a<b>&c" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Many callers at once share a few compressors, and get what Pack returns.
func TestPacker(t *testing.T) {
	t.Parallel()
	p := NewPacker()
	var packing sync.WaitGroup
	for i := range 20 {
		packing.Go(func() {
			want, _ := Pack(i)
			if got, err := p.Pack(i); err != nil || got != want {
				t.Errorf("%d: got %q, %v, want %q", i, got, err, want)
			}
		})
	}
	packing.Wait()
	if len(p.free) != cap(p.free) {
		t.Errorf("got %d free compressors, want %d", len(p.free), cap(p.free))
	}
}

// The texts are what drover 0.1 stored: of a release and of claims of DNS.
func TestUnpack_Stored(t *testing.T) {
	t.Parallel()
	for name, packed := range map[string]string{
		"without escapes": "H4sIAAAAAAAA/6pW8kvMTVWyUkq0SbJTS1aq5QIEAAD//4cRIpwSAAAA",
		"with escapes":    "H4sIAAAAAAAA/6pW8kvMTVWyUkqMKTUwME5OAlOpINLILFmplgsQAAD//xqbhZ4hAAAA",
	} {
		var got struct{ Name string }
		if err := Unpack(packed, &got); err != nil || got.Name != "a<b>&c" {
			t.Errorf("%s: got %+v, %v, want name a<b>&c", name, got, err)
		}
	}
	for name, packed := range map[string]string{
		"no base64":  "{}",
		"no gzip":    "e30=",
		"cut":        "H4sIAAAAAAAA/6pW8kvMTVWy",
		"with noise": "H4sIAAAAAAAA/6pW8kvMTVWyUkq0SbJTS1aq5QIEAAD//4cRIpwSAAAA" + "!",
	} {
		var got struct{ Name string }
		if err := Unpack(packed, &got); err == nil {
			t.Errorf("%s: got %+v and no error", name, got)
		}
	}
}

// encoded notes that it is being encoded, until the test lets it continue.
type encoded struct {
	running *atomic.Int32
	proceed <-chan struct{}
}

func (e encoded) MarshalJSON() ([]byte, error) {
	e.running.Add(1)
	<-e.proceed
	return []byte("1"), nil
}

// A caller that waits for a compressor holds no encoded value.
func TestPacker_EncodesFewAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		proceed := make(chan struct{})
		p := NewPacker()
		for range 20 * runtime.GOMAXPROCS(0) {
			go func() {
				if text, err := p.Pack(encoded{&running, proceed}); text == "" || err != nil {
					t.Errorf("got %q, %v", text, err)
				}
			}()
		}
		synctest.Wait()
		if got, want := running.Load(), int32(runtime.GOMAXPROCS(0)); got != want {
			t.Errorf("%d values are encoded at once, want %d", got, want)
		}
		close(proceed)
	})
}

func TestCheckLayout(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"1": "", "2": "",
		"":   "the object: no layout number: not written by drover",
		"x":  "the object: no layout number: not written by drover",
		"0":  "the object: no layout number: not written by drover",
		"-1": "the object: no layout number: not written by drover",
		"3":  "the object: written by a newer drover (layout 3, this one knows 2): update drover",
	} {
		err := CheckLayout(text, "the object", 2)
		if got := errorText(err); got != want {
			t.Errorf("layout %q: got %q, want %q", text, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
