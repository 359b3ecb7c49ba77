package nomad

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// ErrConflict is the error of a check-and-set that another client won.
var ErrConflict = errors.New("another client changed it at the same time")

// StatusCode returns the HTTP status of the answer in err, or 0 if err holds no
// answer of Nomad's API.
func StatusCode(err error) int {
	var answer api.UnexpectedResponseError
	if !errors.As(err, &answer) {
		return 0
	}
	return answer.StatusCode()
}

// Body returns the text of the answer in err, "" if there is none.
func Body(err error) string {
	var answer api.UnexpectedResponseError
	if !errors.As(err, &answer) {
		return ""
	}
	return answer.Body()
}

// IsNotFound reports whether Nomad answered 404.
func IsNotFound(err error) bool { return StatusCode(err) == http.StatusNotFound }

// IsForbidden reports whether Nomad answered 403: the token is unknown, has
// expired, or its policies do not allow the request.
func IsForbidden(err error) bool { return StatusCode(err) == http.StatusForbidden }

// IsConflict reports whether a check-and-set failed because the object is not
// at the enforced index: a variable (409), or a job (IsStaleJob). It also reports
// ErrConflict.
func IsConflict(err error) bool {
	var variable api.ErrCASConflict
	return errors.Is(err, ErrConflict) || errors.As(err, &variable) || StatusCode(err) == http.StatusConflict || IsStaleJob(err)
}

// IsStaleJob reports whether a job was not registered because it is not at the
// enforced index (EnforceRegister, which Nomad answers with 500).
func IsStaleJob(err error) bool {
	return err != nil && strings.Contains(err.Error(), "Enforcing job modify index")
}

// IsInternal reports whether Nomad answered 500. It does so for a fault of its
// own, and also for a job that it refuses.
func IsInternal(err error) bool { return StatusCode(err) == http.StatusInternalServerError }

// IsUnavailable reports whether no server has processed the request: it was not
// reached, has no leader, cannot reach the region, or is too busy. The same
// request may succeed later. A 500 is only unavailable if its text says so (see
// IsInternal). A cancelled context is not: the caller gave up.
func IsUnavailable(err error) bool {
	var (
		network *net.OpError
		request *url.Error
	)
	if err == nil || errors.Is(err, context.Canceled) {
		return false
	}
	return isUnavailableAnswer(StatusCode(err), Body(err)) || errors.As(err, &network) || errors.As(err, &request)
}

func isUnavailableAnswer(code int, body string) bool {
	switch code { // all but the first are of a proxy before Nomad
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return slices.ContainsFunc([]string{
		"No cluster leader", "rpc error: EOF", "connection refused",
		// Of a region that requests are forwarded to, in words of Nomad and yamux.
		"No path to region", "failed to get conn", "i/o timeout", "i/o deadline reached",
		"stream closed", "session shutdown", "keepalive timeout", "connection reset", "broken pipe",
	}, func(text string) bool { return strings.Contains(body, text) })
}

// Plain returns err with the text of Nomad alone, without the HTTP request around it.
// It wraps err.
func Plain(err error) error {
	var request *url.Error
	switch {
	case Body(err) != "":
		return &plainError{strings.TrimSpace(Body(err)), err}
	case errors.As(err, &request):
		return &plainError{request.Err.Error(), err}
	}
	return err
}

type plainError struct {
	msg string
	err error
}

func (e *plainError) Error() string { return e.msg }
func (e *plainError) Unwrap() error { return e.err }

// IsRefused reports whether Nomad, or a proxy before it, refuses the token (403 or 401).
func IsRefused(err error) bool {
	return IsForbidden(err) || StatusCode(err) == http.StatusUnauthorized
}
