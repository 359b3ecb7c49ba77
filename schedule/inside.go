package schedule

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"
)

// AuthMethod is the ACL auth method by which a schedule's job trades its
// workload identity for a token, where there is one.
const AuthMethod = "drover"

// Inside finds the address and token with which a drover that runs as a task of
// Nomad makes releases. Until 2.0.4
// Nomad does not plan for a workload identity
// (https://github.com/hashicorp/nomad/pull/28139), and planning is the first
// thing that a release does. So the identity is traded for a token (POST
// /v1/acl/login), and where there are no ACLs the agent of the node is asked
// without any. environ is os.Getenv.
func Inside(ctx context.Context, cfg *api.Config, environ func(string) string) (address, token string, err error) {
	address = cfg.Address // NewClient writes another one there
	c, err := api.NewClient(cfg)
	if err != nil {
		return "", "", fmt.Errorf("talking to Nomad: %w", err)
	}
	identity := cmp.Or(cfg.SecretID, environ("NOMAD_TOKEN"))
	if !strings.HasPrefix(address, "unix:") || strings.Count(identity, ".") != 2 {
		return address, identity, nil // not a task's socket, or a token of its own
	}
	made, _, err := c.ACLAuth().Login(&api.ACLLoginRequest{AuthMethodName: AuthMethod, LoginToken: identity}, (&api.WriteOptions{}).WithContext(ctx))
	switch {
	case err == nil:
		return address, made.SecretID, nil
	case !strings.Contains(err.Error(), "ACL support disabled"):
		return address, identity, nil //nolint:nilerr // no such method: the identity may do it by itself
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
