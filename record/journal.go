package record

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/drover-nomad/drover/nomad"
	"github.com/drover-nomad/drover/nomad/variables"
)

// Journal writes how far each service of a release has come. It has one
// writer per page; changes that come while a write is under way go into the
// next one together. A write is a check-and-set on what this process wrote
// last: when another process has taken over the release, or the journal cannot
// be written, every Update returns the error of that write.
type Journal struct {
	releases *Releases
	number   int
	owner    string
	stop     context.CancelFunc
	ctx      context.Context //nolint:containedctx // of the writers, which outlive a call
	writers  sync.WaitGroup
	slots    chan struct{} // of the writes that are under way

	mu       sync.Mutex
	services []Service
	pages    []*journalPage
	of       []int // service → page
	err      error
	lost     chan struct{} // closed when err is set
}

type journalPage struct {
	first, n int // its services
	index    uint64
	seq      int
	version  int // of what is to be written, counted up by every change
	stored   int // the version that is written
	wake     chan struct{}
	written  chan struct{} // closed and renewed after each write

	items   map[string]string // see page
	unknown unknown
}

func newJournal(ctx context.Context, r *Releases, head *Release, pages [][]Service) *Journal {
	j := &Journal{releases: r, number: head.Number, owner: head.Owner, services: dropOutlines(slices.Concat(pages...)), lost: make(chan struct{}), slots: make(chan struct{}, journalWrites)}
	// The writers go on while the deployment is being cancelled: that is to be
	// written down, too.
	j.ctx, j.stop = context.WithCancel(context.WithoutCancel(ctx))
	first := 0
	for i, p := range pages {
		j.pages = append(j.pages, &journalPage{first: first, n: len(p), wake: make(chan struct{}, 1), written: make(chan struct{})})
		first += len(p)
		for range p {
			j.of = append(j.of, i)
		}
	}
	return j
}

func (j *Journal) start() {
	for i := range j.pages {
		j.writers.Go(func() { j.write(i) })
	}
}

// Services is the journal as it is now.
func (j *Journal) Services() []Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.services)
}

// Service is one line of the journal as it is now.
func (j *Journal) Service(i int) Service {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.services[i]
}

// Note changes a line; it is written soon.
func (j *Journal) Note(i int, f func(*Service)) { j.change(i, f, true) }

// NoteLater changes a line; it is written with the next change of the page, or by
// Flush.
func (j *Journal) NoteLater(i int, f func(*Service)) { j.change(i, f, false) }

// Update changes a line and returns when that is written.
func (j *Journal) Update(ctx context.Context, i int, f func(*Service)) error {
	return j.wait(ctx, j.of[i], j.change(i, f, true))
}

// Flush returns when everything is written.
func (j *Journal) Flush(ctx context.Context) error {
	var errs []error
	for i, p := range j.pages {
		j.mu.Lock()
		version := p.version
		if p.stored < version {
			p.poke()
		}
		j.mu.Unlock()
		errs = append(errs, j.wait(ctx, i, version))
	}
	return errors.Join(errs...)
}

// Close writes what is left and ends the writers.
func (j *Journal) Close(ctx context.Context) error {
	err := j.Flush(ctx)
	j.stop()
	j.writers.Wait()
	return err
}

// change changes a line, and wakes the writer of its page if soon. It returns the
// version of the page that has the change.
func (j *Journal) change(i int, f func(*Service), soon bool) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.services[i])
	p := j.pages[j.of[i]]
	p.version++
	if soon {
		p.poke()
	}
	return p.version
}

// poke wakes the writer of the page.
func (p *journalPage) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (j *Journal) wait(ctx context.Context, i, version int) error {
	p := j.pages[i]
	for {
		j.mu.Lock()
		stored, err, written := p.stored, j.err, p.written
		j.mu.Unlock()
		switch {
		case err != nil:
			return err
		case stored >= version:
			return nil
		}
		select {
		case <-written:
		case <-j.lost:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = err
		close(j.lost)
	}
}

// write is the writer of one page.
func (j *Journal) write(i int) {
	p := j.pages[i]
	for {
		select {
		case <-p.wake:
		case <-j.lost:
			return
		case <-j.ctx.Done():
			return
		}
		// Changes that come until there is a slot go into the same write.
		select {
		case j.slots <- struct{}{}:
		case <-j.lost:
			return
		case <-j.ctx.Done():
			return
		}
		j.mu.Lock()
		if p.stored == p.version { // the write before had it already
			j.mu.Unlock()
			<-j.slots
			continue
		}
		content := page{Owner: j.owner, Seq: p.seq + 1, Services: slices.Clone(j.services[p.first : p.first+p.n]), items: p.items, unknown: p.unknown}
		version := p.version
		j.mu.Unlock()
		index, err := j.put(i, content)
		<-j.slots
		if err != nil {
			j.fail(err)
			return
		}
		j.mu.Lock()
		p.index, p.seq, p.stored = index, content.Seq, version
		close(p.written)
		p.written = make(chan struct{})
		j.mu.Unlock()
	}
}

// journalWrites is how many pages are written at once. More would wait for a connection,
// and take memory meanwhile: each holds its page, encoded.
const journalWrites = 16

// journalPatience is how long Nomad may not take a write of the journal.
const journalPatience = time.Minute

// put writes a page, and retries it for a minute.
func (j *Journal) put(i int, content page) (index uint64, err error) {
	p := j.pages[i]
	policy := nomad.Policy{
		Patience: journalPatience, Attempt: journalPatience,
		Retry: func(err error) bool { return !errors.Is(err, ErrTakenOver) && !variables.IsRejected(err) },
	}
	err = policy.Do(j.ctx, func(ctx context.Context) (err error) {
		if index, err = j.releases.writePage(ctx, j.number, i, content, p.index); !errors.Is(err, ErrTakenOver) {
			return err
		}
		// It is no conflict if an earlier attempt wrote the page and its answer was
		// lost.
		there, was, rerr := j.releases.readPage(ctx, j.number, i)
		if rerr == nil && there.Owner == j.owner && there.Seq == content.Seq {
			index = was
			return nil
		}
		return err
	})
	return index, err
}
