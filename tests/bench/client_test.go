package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// exchanger sends one request at a time on a connection of its own, at as little cost
// as possible: the client has the same processors as what is measured.
type exchanger interface {
	// exchange sends a GET and reads the whole answer, of size bytes. It reports
	// whether the connection takes no other request, as nginx's after a thousand.
	exchange(host, path string, size int) (last bool, err error)
	close()
}

// dial connects with HTTP/1.1, or with HTTP/2.
func dial(ctx context.Context, address string, h2 bool) (exchanger, error) {
	protocol := "http/1.1"
	if h2 {
		protocol = "h2"
	}
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if !h2 {
		return &http1{conn, bufio.NewReaderSize(conn, 64<<10), nil}, nil
	}
	c := &http2Client{conn: conn, framer: http2.NewFramer(conn, bufio.NewReaderSize(conn, 64<<10))}
	c.encoder = hpack.NewEncoder(&c.block)
	c.framer.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			c.status = f.Value
		}
	})
	if _, err = io.WriteString(conn, http2.ClientPreface); err == nil {
		err = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	}
	if err == nil {
		err = c.framer.WriteWindowUpdate(0, 1<<30)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

type http1 struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

func (c *http1) close() { _ = c.conn.Close() }

func (c *http1) exchange(host, path string, size int) (bool, error) {
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n", path, host); err != nil {
		return false, err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if c.buf == nil {
		c.buf = make([]byte, 64<<10)
	}
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, c.buf); err != nil || n != int64(size) || res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s with %d bytes, want %d: %w", res.Status, n, size, err)
	}
	return res.Close, nil
}

type http2Client struct {
	conn    net.Conn
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	stream  uint32
	credit  uint32 // of the connection, not given back yet
	status  string
}

func (c *http2Client) close() { _ = c.conn.Close() }

func (c *http2Client) exchange(host, path string, size int) (bool, error) {
	c.block.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", host}, {":path", path}, {"user-agent", "bench"}, {"accept", "*/*"}, {"accept-encoding", "gzip"}} {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return false, err
		}
	}
	id := 2*c.stream + 1
	c.stream++
	c.status = ""
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		return false, err
	}
	for last, n := false, 0; ; {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return false, err
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.GoAwayFrame:
			last = true
		case *http2.RSTStreamFrame:
			err = fmt.Errorf("stream reset: %s", f.ErrCode)
		case *http2.HeadersFrame:
			_, err = c.decoder.Write(f.HeaderBlockFragment())
			ended = f.StreamEnded()
		case *http2.DataFrame:
			n += len(f.Data())
			c.credit += f.Length
			ended = f.StreamEnded()
			if c.credit > 1<<20 {
				err = c.framer.WriteWindowUpdate(0, c.credit)
				c.credit = 0
			}
		}
		switch {
		case err != nil:
			return false, err
		case ended && (n != size || c.status != "200"):
			return false, fmt.Errorf("status %s with %d bytes, want %d", c.status, n, size)
		case ended:
			return last, nil
		}
	}
}

// sample is what one turn measured.
type sample struct {
	requests       int
	perSecond, p99 float64 // p99 in seconds
	cpu            float64 // seconds of a processor for each request
}

// load is what the clients ask for.
type load struct {
	h2    bool
	hosts []string // in turns
	path  string
	size  int
}

// measure sends requests for a second on 16 connections.
func measure(b *testing.B, address string, l load) sample {
	b.Helper()
	const clients = 16
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		all   []time.Duration
		start = make(chan struct{})
	)
	for client := range clients {
		conn, err := dial(b.Context(), address, l.h2)
		if err != nil {
			b.Fatal(err)
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer func() { conn.close() }()
			var took []time.Duration
			<-start
			for i, end := client, time.Now().Add(time.Second); ; i++ {
				began := time.Now()
				if began.After(end) {
					break
				}
				last, err := conn.exchange(l.hosts[i%len(l.hosts)], l.path, l.size)
				if err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(began))
				if last {
					conn.close()
					if conn, err = dial(b.Context(), address, l.h2); err != nil {
						b.Error(err)
						return
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		}()
	}
	began := time.Now()
	close(start)
	wait.Wait()
	elapsed := time.Since(began)
	if len(all) == 0 {
		b.Fatal("no request was answered")
	}
	slices.Sort(all)
	return sample{requests: len(all), perSecond: float64(len(all)) / elapsed.Seconds(), p99: all[len(all)*99/100].Seconds()}
}

// Sizes of answers.
const (
	small = 512
	large = 1 << 20
)

// respond answers every request with a small body, or with a large one at /large, at
// no more cost than that.
func respond(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	answers := map[bool][]byte{}
	for isLarge, size := range map[bool]int{false: small, true: large} {
		answers[isLarge] = fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				isLarge := false
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if bytes.HasPrefix(line, []byte("GET ")) {
						isLarge = bytes.HasPrefix(line, []byte("GET /large"))
					}
					if len(line) == 2 {
						if _, err := conn.Write(answers[isLarge]); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}
