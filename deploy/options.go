package deploy

import (
	"context"
	"time"

	"github.com/drover-nomad/drover/release"
	"github.com/drover-nomad/drover/rollout"
)

// Limits say how much happens at once and how long it may take. Zero is the
// default of each.
type Limits struct {
	Parallel         int           // services on their way at once
	ServiceTimeout   time.Duration // until a service is healthy
	PlacementTimeout time.Duration // until a service has a node; part of ServiceTimeout
	Timeout          time.Duration // of a release, without going back; no limit by default
	LockWait         time.Duration // for the lock of the stack; not at all by default
	Unreachable      time.Duration // for a Nomad that does not answer
	ApprovalWait     time.Duration // for an approval from elsewhere; not at all by default
}

func (l *Limits) rollout() rollout.Options {
	return rollout.Options{Parallel: l.Parallel, Timeout: l.ServiceTimeout, PlacementTimeout: l.PlacementTimeout, Silence: l.Unreachable}
}

// NewRelease are the options of a verb that makes a release.
type NewRelease struct {
	Message          string // why, for the record
	OnFailure        string // one of the constants release.OnFailure…, "" for the default
	Keep             int    // how many releases are kept; as many as before when 0
	TakeOver         bool   // abandon a release that is open
	Prune            bool   // stop running jobs that are not in the stack any more, without asking
	AllowUnplaceable bool   // begin although no node has room for a service

	unattended *release.Unattended // of a schedule
}

// Person answers questions while a verb runs. Methods are called one at a time.
type Person interface {
	// Approve reports whether a wave may begin. It returns the error of ctx when
	// that ends first, which it does when the approval comes from elsewhere.
	Approve(ctx context.Context, a release.Approval) (bool, error)
	// Prune reports whether running jobs may stop that are not in the stack any
	// more.
	Prune(ctx context.Context, jobs []release.Change) (bool, error)
}

// TermsPerson is a [Person] who is also asked about the terms of service of CAs.
type TermsPerson interface {
	Person
	// AcceptTerms returns the name of the person if they accept the terms of service
	// of an issuer, and "" if they refuse.
	AcceptTerms(ctx context.Context, issuer, url string) (by string, err error)
}
