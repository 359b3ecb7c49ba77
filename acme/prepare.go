package acme

import "context"

// Prepare makes what an edge needs to start before any CA was asked: the
// self-signed stand-in of the certificate, and the published thumbprint of the
// account key.
func (m *Manager) Prepare(ctx context.Context, spec Spec) (*Object, error) {
	if _, err := m.account(ctx); err != nil {
		return nil, err
	}
	return m.Apply(ctx, spec)
}
