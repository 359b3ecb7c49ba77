package schedule

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/nomad/api"

	"github.com/drover-nomad/drover/acl"
)

// LoginError means that Nomad gave no token for the workload identity of the
// job.
type LoginError struct{ Err error }

func (e *LoginError) Error() string {
	return fmt.Sprintf("logging in to Nomad with the job's identity: %s; `drover acl bootstrap` lets Nomad know its keys, and `drover schedule apply` the job", e.Err)
}

func (e *LoginError) Unwrap() error { return e.Err }

// Inside returns the address and token with which a drover that runs as a task of Nomad
// makes releases. Nomad before 2.0.4 does not plan for a workload identity
// (https://github.com/hashicorp/nomad/pull/28139), and a release begins with a plan. So
// Inside exchanges the identity for a token (POST /v1/acl/login). Without ACLs it returns
// the address of the node's agent and no token. environ is os.Getenv.
//
// With a *LoginError the token is the identity itself, which can at least record the
// failure.
func Inside(ctx context.Context, cfg *api.Config, environ func(string) string) (address, token string, err error) {
	address = cfg.Address // NewClient writes another one there
	c, err := api.NewClient(cfg)
	if err != nil {
		return "", "", fmt.Errorf("talking to Nomad: %w", err)
	}
	identity := environ("NOMAD_TOKEN")
	if !strings.HasPrefix(address, "unix:") || strings.Count(identity, ".") != 2 {
		return address, identity, nil // not a task's socket, or a token of its own
	}
	// Nomad writes it there, as the job's identity block says.
	proof, err := os.ReadFile(filepath.Join(environ("NOMAD_SECRETS_DIR"), "nomad_"+acl.LoginIdentity+".jwt"))
	if errors.Is(err, os.ErrNotExist) {
		return address, identity, &LoginError{errors.New("the job is of an older drover")}
	}
	if err != nil {
		return address, identity, &LoginError{err}
	}
	made, _, err := c.ACLAuth().Login(&api.ACLLoginRequest{AuthMethodName: acl.LoginMethod, LoginToken: string(proof)}, (&api.WriteOptions{}).WithContext(ctx))
	switch {
	case err == nil:
		return address, made.SecretID, nil
	case !noACLs(err):
		return address, identity, &LoginError{err}
	}
	alloc, _, err := c.Allocations().Info(environ("NOMAD_ALLOC_ID"), (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", "", fmt.Errorf("finding the agent of this node: %w", err)
	}
	node, _, err := c.Nodes().Info(alloc.NodeID, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", "", fmt.Errorf("finding the agent of this node: %w", err)
	}
	if node.TLSEnabled {
		return "https://" + node.HTTPAddr, "", nil
	}
	return "http://" + node.HTTPAddr, "", nil
}
