package nomad

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	capi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/nomad/api"
)

// ClusterError is the error of a Nomad or Consul that does not answer, refuses the token,
// or has a version that drover does not support.
type ClusterError struct {
	System  string // Nomad or Consul
	Target  string // "" for the home cluster
	Address string
	Problem string
	Hint    string // what to do
	Err     error
}

func (e *ClusterError) Error() string {
	system := e.System
	if e.Target != "" {
		system += " of target " + e.Target
	}
	msg := fmt.Sprintf("%s at %s %s", system, e.Address, e.Problem)
	if e.Err != nil {
		var request *url.Error
		if errors.As(e.Err, &request) {
			msg += ": " + request.Err.Error() // without its URL
		} else {
			msg += ": " + e.Err.Error()
		}
	}
	return msg + "; " + e.Hint
}

func (e *ClusterError) Unwrap() error { return e.Err }

// Oldest versions that drover works with.
const (
	minNomadMajor, minNomadMinor   = 1, 10
	minConsulMajor, minConsulMinor = 1, 17
)

// preflightNomad checks, before anything is written, that Nomad answers, has a
// supported version and accepts the token (GET /v1/agent/self). It returns the
// region of the agent. A token without agent:read cannot see region and version:
// the region is then "" and the version is not checked.
func preflightNomad(ctx context.Context, client *api.Client) (region string, err error) {
	var self api.AgentSelf
	_, err = client.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
	fail := &ClusterError{System: "Nomad", Address: client.Address(), Err: err}
	switch {
	case err == nil:
	case IsForbidden(err) && !badToken(Body(err)):
		return "", nil // a good token that may not look at the agent
	default:
		return "", nomadError(fail)
	}
	region, _ = self.Config["Region"].(string)
	version := ""
	if v, ok := self.Config["Version"].(map[string]any); ok {
		version, _ = v["Version"].(string)
	}
	if tooOld(version, minNomadMajor, minNomadMinor) {
		fail.Problem = fmt.Sprintf("has version %s", version)
		fail.Hint = fmt.Sprintf("drover needs %d.%d or newer", minNomadMajor, minNomadMinor)
		return "", fail
	}
	return region, nil
}

func badToken(body string) bool {
	return strings.Contains(body, "token not found") || strings.Contains(body, "token expired") || strings.Contains(body, "must be UUID")
}

func nomadError(e *ClusterError) error {
	switch {
	case errors.Is(e.Err, context.Canceled):
		return e.Err
	case e.tls("NOMAD_ADDR", "NOMAD_CACERT", "NOMAD_CLIENT_CERT and NOMAD_CLIENT_KEY", "NOMAD_TLS_SERVER_NAME"):
	case badToken(Body(e.Err)):
		e.Problem, e.Hint = "refuses the token", "set NOMAD_TOKEN to one of this cluster that has not expired"
	case IsForbidden(e.Err):
		e.Problem, e.Hint = "refuses the token", "set NOMAD_TOKEN to one that has not expired and may do this"
		if takes := grant(RefusedRequest(e.Err)); takes != "" {
			e.Hint += ", which takes " + takes
		}
		e.Hint += "; `nomad acl token self` shows it, `drover acl policy --for deployer` prints what a deployment takes"
	case StatusCode(e.Err) != 0:
		e.Problem, e.Hint = fmt.Sprintf("answers %d", StatusCode(e.Err)), "look at `nomad server members`"
	default:
		e.Problem, e.Hint = "cannot be reached", "start it, or set NOMAD_ADDR (and NOMAD_CACERT, NOMAD_CLIENT_CERT with TLS)"
	}
	return e
}

// toTLS is in the answer of a server that expects TLS.
const toTLS = "HTTP request to an HTTPS server"

// tls sets the problem and the hint of a failure of TLS, and reports whether it is one.
// The arguments are the names of the environment variables for the hint.
func (e *ClusterError) tls(addr, ca, client, name string) bool {
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		plain   tls.RecordHeaderError
		op      *net.OpError
	)
	switch {
	case errors.As(e.Err, &unknown):
		e.Problem, e.Hint = "has a certificate of a CA that is not trusted", "set "+ca+" to the file with its CA"
	case errors.As(e.Err, &host):
		e.Problem, e.Hint = "has a certificate that is for other names", "set "+addr+" or "+name+" to one of its names"
	case errors.As(e.Err, &invalid):
		e.Problem, e.Hint = "has a certificate that is not valid", "look at its dates with openssl s_client -connect, and at this machine's clock"
	case errors.As(e.Err, &plain):
		e.Problem, e.Hint = "does not speak TLS", "set "+addr+" to http://"
	case errors.As(e.Err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate required"):
		e.Problem, e.Hint = "wants a client certificate", "set "+client
	case errors.As(e.Err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"): // a TLS alert
		e.Problem, e.Hint = "refuses the client certificate", "set "+client+" to those of a CA that it trusts"
	case e.Err != nil && strings.Contains(e.Err.Error(), toTLS):
		e.Problem, e.Hint = "speaks TLS", "set "+addr+" to https://"
	default:
		return false
	}
	return true
}

func preflightConsul(ctx context.Context, client *capi.Client) error {
	var self struct{ Config struct{ Version string } }
	_, err := client.Raw().Query("/v1/agent/self", &self, (&capi.QueryOptions{}).WithContext(ctx))
	fail := &ClusterError{System: "Consul", Address: consulAddress(), Err: err}
	var resp capi.StatusError
	switch {
	case err == nil:
	case errors.As(err, &resp) && resp.Code == http.StatusForbidden && !strings.Contains(resp.Body, "not found"):
		return nil
	default:
		return consulError(fail)
	}
	if tooOld(self.Config.Version, minConsulMajor, minConsulMinor) {
		fail.Problem = fmt.Sprintf("has version %s", self.Config.Version)
		fail.Hint = fmt.Sprintf("drover needs %d.%d or newer", minConsulMajor, minConsulMinor)
		return fail
	}
	return nil
}

// consulAddress returns the address from the environment; capi.Client does not export
// its own.
func consulAddress() string { return capi.DefaultConfig().Address }

// ConsulError returns the failure of a request to Consul as a *ClusterError. It returns
// a cancelled context as it is.
func ConsulError(err error) error {
	return consulError(&ClusterError{System: "Consul", Address: consulAddress(), Err: err})
}

func consulError(e *ClusterError) error {
	var resp capi.StatusError
	switch {
	case errors.Is(e.Err, context.Canceled):
		return e.Err
	case e.tls("CONSUL_HTTP_ADDR", "CONSUL_CACERT", "CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY", "CONSUL_TLS_SERVER_NAME"):
	case errors.As(e.Err, &resp) && resp.Code == http.StatusForbidden && strings.Contains(resp.Body, "ACL not found"):
		e.Problem, e.Hint = "refuses the token", "set CONSUL_HTTP_TOKEN to one of this cluster that has not expired"
	case errors.As(e.Err, &resp) && resp.Code == http.StatusForbidden:
		e.Problem, e.Hint = "refuses the token", "set CONSUL_HTTP_TOKEN to one that may do this"
		if takes := consulGrant(resp.Body); takes != "" {
			e.Hint += ", which takes " + takes
		}
		e.Hint += "; `drover acl policy --for deployer --system consul` prints what a deployment takes"
	case errors.As(e.Err, &resp):
		e.Problem, e.Hint = fmt.Sprintf("answers %d", resp.Code), "look at `consul members`"
	default:
		e.Problem, e.Hint = "cannot be reached", "start it, or set CONSUL_HTTP_ADDR (and CONSUL_CACERT, CONSUL_CLIENT_CERT with TLS)"
	}
	return e
}

// AsClusterError returns err, the error of a request to Nomad at address or to Consul, as
// a *ClusterError. It reports false if the cluster is not the cause: the request itself
// was wrong, or its context was cancelled.
func AsClusterError(err error, address string) (*ClusterError, bool) {
	var (
		cluster *ClusterError
		consul  capi.StatusError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return nil, false
	case errors.As(err, &cluster):
		return cluster, true
	case errors.As(err, &consul) && consul.Code == http.StatusForbidden:
		e := &ClusterError{System: "Consul", Address: consulAddress(), Err: err}
		_ = consulError(e)
		return e, true
	case IsRefused(err), IsUnavailable(err), StatusCode(err) != 0 && strings.Contains(err.Error(), toTLS):
		e := &ClusterError{System: "Nomad", Address: address, Err: err}
		_ = nomadError(e)
		return e, true
	}
	return nil, false
}

// tooOld compares major and minor. It is false for a version that it cannot read.
func tooOld(version string, major, minor int) bool {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return false
	}
	ma, err1 := strconv.Atoi(parts[0])
	mi, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return false
	}
	return ma < major || (ma == major && mi < minor)
}

// SupportedNomad reports whether drover supports that version of Nomad.
func SupportedNomad(version string) bool { return !tooOld(version, minNomadMajor, minNomadMinor) }

// SupportedConsul reports whether drover supports that version of Consul.
func SupportedConsul(version string) bool { return !tooOld(version, minConsulMajor, minConsulMinor) }
