// One video on its way: pieces, what is known of them, and the end held back.

package sink

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// A piece takes between these times to send, or it becomes larger or smaller:
// requests have a price, and while one is sent nothing is acknowledged.
const (
	pieceTooQuick = time.Second
	pieceTooSlow  = 4 * time.Second
)

// commitPatience is how much longer than before a publish is tried: nobody can
// take it back any more.
const commitPatience = 12

// youtubeFile is an upload. Its session begins with the first byte: who only
// asks whether a file would be taken spends none of the quota.
type youtubeFile struct {
	*youtube
	offer     *protocol.Offer
	life      context.Context
	published bool // it was there
	closed    bool

	record youtubeRecord // Offset and CRC: what the service has for certain
	buffer []byte        // what comes after
	piece  int           // how much of it is sent at once
}

// resume asks the service what it has of an earlier upload.
func (f *youtubeFile) resume(old youtubeRecord) (File, Have, error) {
	have := Have{ByCRC: true}
	var reply youtubeReply
	err := f.persist(f.life, f.opts.Patience, func(ctx context.Context) (err error) {
		reply, err = f.ask(ctx, old.Session, old.total())
		return err
	})
	switch {
	case errors.Is(err, errGone):
		have.Note = "starts again: the upload session has expired"
		return f, have, f.forget(string(f.offer.Name))
	case err != nil:
		return nil, have, err
	case reply.video != "" && old.Digest.Algorithm() == f.offer.Digest:
		// The answer to the last piece was lost.
		f.record, f.published = old, true
		f.remember(reply.video)
		return f, Have{Offset: old.Total, Published: true, Digest: old.Digest}, nil
	}
	crc, ok := old.crcAt(reply.have)
	switch {
	case !goesOnByCRC(f.offer):
		have.Note = fmt.Sprintf("starts again: an upload cannot go on when its content is checked by %s", f.offer.Digest)
	case !ok || reply.video != "":
		have.Note = "starts again: what the service has is not what was sent"
	default:
		f.record.Session, f.record.Offset, f.record.CRC = old.Session, reply.have, crc
		have.Offset, have.CRC = reply.have, crc
		return f, have, nil
	}
	f.cancel(old.Session)
	return f, have, f.forget(string(f.offer.Name))
}

// total is the size of all content, -1 when it is not known yet.
func (r *youtubeRecord) total() int64 {
	if r.Total > 0 {
		return r.Total
	}
	return r.Size
}

// crcAt is the CRC32C of the first n bytes, where that is known.
func (r *youtubeRecord) crcAt(n int64) (uint32, bool) {
	if n == r.Offset {
		return r.CRC, true
	}
	units, rest := (n-r.Offset)/youtubeUnit, (n-r.Offset)%youtubeUnit
	if n < r.Offset || rest != 0 || units > int64(len(r.Marks)) {
		return 0, false
	}
	return r.Marks[units-1], true
}

// Write takes p into the buffer, and sends a piece when more comes than it
// holds: the last is not sent before commit.
func (f *youtubeFile) Write(p []byte) (int, error) {
	if f.published {
		return 0, protocol.Errorf(protocol.CodeInternal, "content for a video that is published already")
	}
	if err := f.begin(f.life); err != nil {
		return 0, err
	}
	for rest := p; len(rest) > 0; {
		if len(f.buffer) >= f.piece {
			if err := f.flush(f.life, len(f.buffer)); err != nil {
				return 0, err
			}
		}
		if cap(f.buffer) < f.piece {
			f.buffer = append(make([]byte, 0, f.piece), f.buffer...)
		}
		n := min(len(rest), f.piece-len(f.buffer))
		f.buffer, rest = append(f.buffer, rest[:n]...), rest[n:]
	}
	return len(p), nil
}

// begin makes sure that there is a session.
func (f *youtubeFile) begin(ctx context.Context) error {
	if f.record.Session != "" {
		return nil
	}
	err := f.persist(ctx, f.opts.Patience, func(ctx context.Context) (err error) {
		f.record.Session, err = f.start(ctx, string(f.offer.Name), f.offer.Size)
		return err
	})
	switch {
	case errors.Is(err, errGone):
		return protocol.Errorf(protocol.CodeIO, "youtube: there is no upload service at %s", f.endpoint)
	case err != nil:
		return err
	default:
		return f.save()
	}
}

func (f *youtubeFile) save() error {
	if err := f.notes.save(string(f.offer.Name), f.record); err != nil {
		return fmt.Errorf("youtube: note the upload of %q: %w", f.offer.Name, err)
	}
	return nil
}

// flush sends the first n bytes of the buffer, which are not the last of the
// file. What a restart needs to know is noted before.
func (f *youtubeFile) flush(ctx context.Context, n int) error {
	crc := f.record.CRC
	f.record.Marks = f.record.Marks[:0]
	for p := f.buffer[:n]; len(p) > 0; p = p[min(len(p), youtubeUnit):] {
		crc = crc32.Update(crc, castagnoli, p[:min(len(p), youtubeUnit)])
		f.record.Marks = append(f.record.Marks, crc)
	}
	if err := f.save(); err != nil {
		return err
	}
	begun := time.Now()
	if _, err := f.send(ctx, f.opts.Patience, f.buffer[:n]); err != nil {
		return err
	}
	f.record.Offset, f.record.CRC, f.record.Marks = f.record.Offset+int64(n), crc, f.record.Marks[:0]
	f.buffer = f.buffer[:copy(f.buffer, f.buffer[n:])]
	switch took := time.Since(begun); {
	case took < pieceTooQuick:
		f.piece = min(f.piece*2, f.opts.Piece)
	case took > pieceTooSlow:
		f.piece = max(f.piece/2/youtubeUnit*youtubeUnit, youtubeUnit)
	}
	return nil
}

// send sends p, which follows Offset, however often that takes, as long as it
// gets further within patience. It returns the video, with the last piece.
func (f *youtubeFile) send(ctx context.Context, patience time.Duration, p []byte) (video string, err error) {
	from, total := f.record.Offset, f.record.total()
	last := from+int64(len(p)) == total
	unsure := false // whether the service has what was sent
	take := func(r youtubeReply) error {
		switch end := from + int64(len(p)); {
		case r.video != "" && last:
			video = r.video
			return nil
		case r.video != "", r.have < from, r.have > end:
			return fmt.Errorf("the service has %d bytes where it had %d and was sent up to %d: %w", r.have, from, end, errGone)
		default:
			from, p = r.have, p[r.have-from:]
			return nil
		}
	}
	for len(p) > 0 && video == "" {
		err := f.persist(ctx, patience, func(ctx context.Context) error {
			before := from
			if unsure {
				r, err := f.ask(ctx, f.record.Session, total)
				if err == nil {
					err = take(r)
				}
				if err != nil || video != "" {
					return err
				}
				unsure = false
				if len(p) == 0 && !last {
					return nil
				}
			}
			if len(p) > 0 {
				r, err := f.put(ctx, f.record.Session, from, p, total)
				if err == nil {
					err = take(r)
				}
				if err != nil || video != "" {
					unsure = true
					return err
				}
			}
			if from == before || last && len(p) == 0 {
				unsure = true
				return &temporary{err: fmt.Errorf("youtube: the service stands still at byte %d", from)}
			}
			return nil
		})
		if err != nil {
			return "", f.lost(err)
		}
	}
	return video, nil
}

// lost forgets a session that cannot be gone on with, so that the push begins
// again: what it had is not in memory any more.
func (f *youtubeFile) lost(err error) error {
	if !errors.Is(err, errGone) {
		return err
	}
	f.cancel(f.record.Session)
	f.record.Session = ""
	_ = f.notes.drop(string(f.offer.Name)) // asking for it says the same again
	return protocol.Errorf(protocol.CodeTruncated, "youtube: the upload of %q must begin again: %w", f.offer.Name, err)
}

// Stage sends all but the last bytes.
func (f *youtubeFile) Stage(ctx context.Context, digest protocol.Digest) error {
	if f.published {
		return nil
	}
	f.record.Total = f.record.Offset + int64(len(f.buffer))
	switch {
	case f.record.Total == 0:
		return errNoVideo(f.offer.Name)
	case len(f.buffer) == 0: // it ends where an earlier one, which was longer, had been sent to
		return f.lost(fmt.Errorf("nothing is left to send at the commit: %w", errGone))
	}
	if n := (len(f.buffer) - 1) / youtubeUnit * youtubeUnit; n > 0 {
		if err := f.flush(ctx, n); err != nil {
			return err
		}
	}
	f.record.Digest = digest
	return f.save()
}

// Publish sends the last bytes, which makes a video of the session.
func (f *youtubeFile) Publish(ctx context.Context) (Published, error) {
	if !f.published {
		_ = Failpoint("youtube commit")
		video, err := f.send(ctx, commitPatience*f.opts.Patience, f.buffer)
		if err != nil {
			return Published{}, err
		}
		_ = Failpoint("youtube committed")
		f.remember(video)
	}
	f.close()
	return Published{Location: youtubeWatch + f.record.Video, Unchanged: f.published}, nil
}

// remember notes the video, so that the same push again finds it.
func (f *youtubeFile) remember(video string) {
	f.record.Video, f.record.When = video, time.Now()
	f.record.Session, f.record.Offset, f.record.CRC, f.record.Marks = "", 0, 0, nil
	_ = f.save() // only spares work
}

// Discard gives the upload up. The session of one that nobody is to go on with
// is cancelled.
func (f *youtubeFile) Discard(keep bool) {
	if !keep && !f.published && f.record.Session != "" {
		f.cancel(f.record.Session)
		_ = f.notes.drop(string(f.offer.Name)) // asking for it says that it is gone
	}
	f.close()
}

func (f *youtubeFile) close() {
	if f.closed {
		return
	}
	f.closed, f.buffer = true, nil
	f.client.CloseIdleConnections()
	f.notes.release(string(f.offer.Name))
	<-f.slots
}
