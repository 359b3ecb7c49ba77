package acme

import "context"

// Prepare makes what an edge needs to start before a CA has issued anything: the
// self-signed placeholder of the certificate, and the published thumbprint of the
// account key.
func (m *Manager) Prepare(ctx context.Context, spec Spec) (*Object, error) {
	account, err := m.account(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.c.Store.publish(ctx, account.Thumbprint); err != nil {
		return nil, err
	}
	return m.Apply(ctx, spec)
}
