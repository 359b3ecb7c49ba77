// Package chaos breaks clusters while drover changes what runs on them. The
// test (make chaos) writes a Row for each run; the program in report makes a
// table of them.
package chaos

import "time"

// Row is what came of one run.
type Row struct {
	Seed   uint64   `json:"seed"`
	Site   string   `json:"site"`   // the kind of cluster
	Faults []string `json:"faults"` // in the order in which they struck
	// Crash is set if a service of the new version does not start, so that the deploy
	// has to fail.
	Crash bool `json:"crash,omitempty"`
	// Code is the exit code of the deploy that the faults struck, -1 when they
	// killed it.
	Code int `json:"code"`
	// Then are the commands, without their stack, that brought about what was
	// wanted; none when the deploy itself did.
	Then []string `json:"then,omitempty"`
	// Recover is the time from the end of the last fault until what was wanted
	// ran and drover status said so.
	Recover time.Duration `json:"recover_ns"`
	// Sent and Lost count requests through the edge from the first fault to
	// the recovery; both are 0 on sites without one.
	Sent int `json:"sent"`
	Lost int `json:"lost"`
	// Files were acknowledged before and during the faults, and compared after.
	Files int           `json:"files"`
	Took  time.Duration `json:"took_ns"`
	// Violations are what must not have happened; a good run has none.
	Violations []string `json:"violations,omitempty"`
	Commit     string   `json:"commit"`
	Date       string   `json:"date"` // YYYY-MM-DD
}

// Good reports whether the run has no violation.
func (r Row) Good() bool { return len(r.Violations) == 0 }
