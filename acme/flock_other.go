//go:build !unix

package acme

import "errors"

func flock(string, bool) (func(), error) {
	return nil, errors.New("certificates in a directory need a Unix; use Nomad Variables or Consul")
}
