// Validation: the limits and rules of every message, applied on the way out as
// well as in.

package protocol

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxWindow is the largest window, in bytes.
const MaxWindow = 1 << 30

// Limits of the fields of messages.
const (
	maxIDLen    = 128
	maxTextLen  = 4 << 10
	maxAgentLen = 256
	maxCodeLen  = 64
	maxLeafName = 512
	defaultHops = 8 // daemons in a row that an Offer may pass by default
	maxHops     = 32
	minWindow   = 64 << 10
)

func (m *Hello) validate() error {
	switch {
	case len(m.Versions) == 0 || len(m.Versions) > 16:
		return Errorf(CodeProtocol, "%d versions, want 1 to 16", len(m.Versions))
	case m.MaxStreams < 0:
		return Errorf(CodeProtocol, "max_streams %d is negative", m.MaxStreams)
	}
	return checkNames(maxAgentLen, m.Agent)
}

func (m *Offer) validate() error {
	if m.Hops == 0 {
		m.Hops = defaultHops
	}
	if m.Digest == "" {
		m.Digest = DigestNone
	}
	switch {
	case len(m.ID) > maxIDLen || strings.ContainsAny(m.ID, "/\\\x00"):
		return Errorf(CodeProtocol, "bad transfer id %q", m.ID)
	case m.Attempt < 0 || len(m.Redials) > maxHops || slices.ContainsFunc(m.Redials, func(n int) bool { return n < 0 }):
		return Errorf(CodeProtocol, "attempt %d, redials %d", m.Attempt, m.Redials)
	case m.Size < -1 || m.Size > maxOffset:
		return Errorf(CodeSize, "size %d, want -1 (unknown) to %d", m.Size, int64(maxOffset))
	case len(m.Fingerprint) > maxIDLen:
		return Errorf(CodeProtocol, "fingerprint of %d bytes, the limit is %d", len(m.Fingerprint), maxIDLen)
	case m.Hops < 0 || m.Hops > maxHops:
		return Errorf(CodeLoop, "hop budget %d, want 1 to %d", m.Hops, maxHops)
	case !m.Codec.known():
		return Errorf(CodeUnsupported, "unknown codec %d", uint8(m.Codec))
	}
	if err := m.Digest.validate(); err != nil {
		return err
	}
	return CheckName(m.Name)
}

func (m *Accept) validate() error {
	switch {
	case m.Offset < 0 || m.Offset > maxOffset:
		return Errorf(CodeProtocol, "offset %d", m.Offset)
	case m.Window < minWindow || m.Window > MaxWindow:
		return Errorf(CodeProtocol, "window %d, want %d to %d", m.Window, minWindow, MaxWindow)
	case m.MaxChunk <= 0 || m.MaxChunk > MaxChunk || int64(m.MaxChunk) > m.Window/4:
		return Errorf(CodeProtocol, "max_chunk %d, want 1 to the smaller of %d and a quarter of the window (%d)", m.MaxChunk, MaxChunk, m.Window/4)
	case len(m.Leaves) == 0:
		return Errorf(CodeProtocol, "no leaves")
	}
	return checkLeaves(m.Leaves)
}

func (m *Reject) validate() error {
	if m.Code == "" {
		return Errorf(CodeProtocol, "no code")
	}
	if err := checkNames(maxCodeLen, string(m.Code)); err != nil {
		return err
	}
	if err := checkNames(maxLeafName, m.Leaf); err != nil {
		return err
	}
	if err := checkTexts(m.Text); err != nil {
		return err
	}
	return checkLeaves(m.Leaves)
}

func (m *Progress) validate() error { return checkLeaves(m.Leaves) }

func (m *Leaves) validate() error { return checkLeaves(m.Leaves) }

func (m *Finish) validate() error {
	if m.Size < 0 || m.Size > maxOffset {
		return Errorf(CodeSize, "size %d, want 0 to %d", m.Size, int64(maxOffset))
	}
	return m.Digest.validate()
}

func (m *Ready) validate() error { return checkLeaves(m.Leaves) }

func (m *Commit) validate() error { return nil }

func (m *Abort) validate() error { return checkTexts(string(m.Code), m.Text) }

func (m *Receipt) validate() error {
	switch m.Status {
	case LeafPublished, LeafUnchanged, LeafFailed:
	case LeafWaiting, LeafReceiving, LeafReady:
		return Errorf(CodeProtocol, "status %q is not final", m.Status)
	default:
		return Errorf(CodeProtocol, "unknown status %q", m.Status)
	}
	if m.Bytes < 0 || m.ResumedFrom < 0 {
		return Errorf(CodeProtocol, "negative bytes %d or resumed_from %d", m.Bytes, m.ResumedFrom)
	}
	if err := m.Digest.validate(); err != nil {
		return err
	}
	if err := checkNames(maxCodeLen, string(m.Code)); err != nil {
		return err
	}
	if err := checkNames(maxLeafName, m.Leaf); err != nil {
		return err
	}
	return checkTexts(m.Location, m.Text)
}

func (m *Query) validate() error {
	if m.Hops == 0 {
		m.Hops = defaultHops
	}
	if m.Hops < 0 || m.Hops > maxHops {
		return Errorf(CodeLoop, "hop budget %d, want 1 to %d", m.Hops, maxHops)
	}
	return nil
}

func (m *Status) validate() error { return checkTexts(m.Node, m.Agent, m.Sink, m.Error) }

func checkLeaves(leaves []Leaf) error {
	for _, l := range leaves {
		if !l.State.known() {
			return Errorf(CodeProtocol, "leaf %q in unknown state %q", l.Name, l.State)
		}
		if l.Offset < 0 {
			return Errorf(CodeProtocol, "leaf %q at negative offset %d", l.Name, l.Offset)
		}
		if err := checkNames(maxLeafName, l.Name); err != nil {
			return err
		}
		if err := checkNames(maxCodeLen, string(l.Code)); err != nil {
			return err
		}
		if err := checkTexts(l.Text); err != nil {
			return err
		}
	}
	return nil
}

// checkTexts bounds the free texts of a message, which end up in terminals and logs.
func checkTexts(texts ...string) error { return checkNames(maxTextLen, texts...) }

func checkNames(limit int, names ...string) error {
	for _, s := range names {
		if len(s) > limit || !utf8.ValidString(s) {
			return Errorf(CodeProtocol, "text of %d bytes, want at most %d of valid UTF-8", len(s), limit)
		}
	}
	return nil
}
