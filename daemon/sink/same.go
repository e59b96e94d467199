// A file that is compared with the one under its name.

package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sbcast/sbcast/protocol"
)

// sameFile compares what comes with a file that is there: the same content is
// already published, other content is refused at the first byte that differs.
type sameFile struct {
	dir    *Dir
	name   string
	offer  *protocol.Offer
	file   diskFile
	buf    []byte
	size   int64
	digest protocol.Digest
}

// openSame opens the file that has the name, to be compared.
func (d *Dir) openSame(name string, r Request) (*sameFile, error) {
	existing, err := d.disk.Read(name)
	if err != nil {
		return nil, err
	}
	return &sameFile{dir: d, name: name, offer: r.Offer, file: existing}, nil
}

func (s *sameFile) Write(b []byte) (int, error) {
	if len(s.buf) < len(b) {
		s.buf = make([]byte, len(b))
	}
	have := s.buf[:len(b)]
	n, err := io.ReadFull(s.file, have)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	if !bytes.Equal(have[:n], b[:n]) || n < len(b) {
		return 0, errDiffers(s.offer.Name, fmt.Sprintf("between byte %d and %d", s.size, s.size+int64(len(b))))
	}
	s.size += int64(n)
	return n, nil
}

func (s *sameFile) Stage(_ context.Context, digest protocol.Digest) error {
	switch n, err := s.file.Read(make([]byte, 1)); {
	case n > 0:
		return errDiffers(s.offer.Name, fmt.Sprintf("it goes on after byte %d", s.size))
	case !errors.Is(err, io.EOF):
		return err
	}
	s.digest = digest
	if s.dir.fsync == FsyncAlways {
		return s.file.Sync()
	}
	return nil
}

// Publish notes that the file is what this source has, so that the next push
// of it costs a round trip, as that of a small file does anyway.
func (s *sameFile) Publish(context.Context) (Published, error) {
	if s.dir.fsync == FsyncCommit {
		if err := s.file.Sync(); err != nil {
			return Published{}, err
		}
	}
	if err := s.dir.syncEntry(s.name, s.dir.syncs.mark()); err != nil {
		return Published{}, err
	}
	if info, err := s.file.Stat(); err == nil && s.size > smallSize {
		_ = s.dir.writeManifest(manifest{ // only spares work
			Name: s.name, Source: sourceKey(s.offer), Digest: s.digest,
			Size: s.size, MTime: info.ModTime(), When: time.Now(), Unsynced: s.dir.fsync == FsyncNever,
		})
	}
	s.Discard(false)
	return Published{Location: s.dir.location(s.name), Unchanged: true}, nil
}

func (s *sameFile) Discard(bool) {
	s.file.Close()
	s.dir.release(s.name)
}
