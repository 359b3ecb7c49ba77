package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// run sends statements to PostgreSQL and returns the rows of their results: protocol 3,
// simple query, a connection for each call. The server asks for the password as it is
// (host … password in pg_hba.conf).
func run(address, user, password, database, statements string) (rows [][]string, err error) {
	c, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	send := func(kind string, body []byte) error {
		head := binary.BigEndian.AppendUint32([]byte(kind), uint32(len(body)+4))
		_, err := c.Write(append(head, body...))
		return err
	}
	start := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	if err := send("", []byte(start)); err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	asked := false
	for {
		kind, body, rerr := message(in)
		if rerr != nil {
			return nil, fmt.Errorf("PostgreSQL at %s: %w", address, rerr)
		}
		switch kind {
		case 'R':
			switch method := binary.BigEndian.Uint32(body); method {
			case 0:
			case 3:
				if err := send("p", []byte(password+"\x00")); err != nil {
					return nil, err
				}
			default:
				return nil, fmt.Errorf("PostgreSQL at %s asks for authentication %d", address, method)
			}
		case 'E':
			err = errors.New("PostgreSQL: " + field(body, 'M'))
			if !asked {
				return nil, err
			}
		case 'D':
			rows = append(rows, values(body))
		case 'Z':
			if asked {
				_ = send("X", nil)
				return rows, err
			}
			asked = true
			if err := send("Q", []byte(statements+"\x00")); err != nil {
				return nil, err
			}
		}
	}
}

func message(in *bufio.Reader) (byte, []byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size < 4 || size > 1<<24 {
		return 0, nil, fmt.Errorf("a message of %d bytes", size)
	}
	body := make([]byte, size-4)
	_, err := io.ReadFull(in, body)
	return head[0], body, err
}

// field is a field of an ErrorResponse.
func field(body []byte, kind byte) string {
	for _, f := range strings.Split(string(body), "\x00") {
		if f != "" && f[0] == kind {
			return f[1:]
		}
	}
	return "unknown error"
}

// values are the columns of a DataRow.
func values(body []byte) []string {
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	var all []string
	for range n {
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size < 0 {
			all = append(all, "")
			continue
		}
		all = append(all, string(body[:size]))
		body = body[size:]
	}
	return all
}
