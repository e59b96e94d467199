// Messages: the decoded form of control frames. Each validates itself, on the
// way out as well as in.

package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Version is the protocol version that this package speaks.
const Version = 1

// Message is a decoded control frame.
type Message interface {
	Kind() Kind
	validate() error
}

// Hello opens a session, both ways.
type Hello struct {
	Versions   []int  `json:"versions"`              // protocol versions this end speaks
	Agent      string `json:"agent,omitempty"`       // software and version, for logs
	MaxStreams int    `json:"max_streams,omitempty"` // streams the peer may have open at once
	Token      string `json:"token,omitempty"`       // of a client without a certificate; only inside TLS
}

// Offer says what is coming. Receivers decide on it before any content flows.
type Offer struct {
	ID          string    `json:"id,omitempty"`          // the transfer: the same on every hop and attempt
	Attempt     int       `json:"attempt,omitempty"`     // a later one fences off an earlier one
	Redials     []int     `json:"redials,omitempty"`     // how often each hop that it came over was dialled again in this attempt
	Name        Name      `json:"name"`                  // of the file
	Size        int64     `json:"size"`                  // content bytes, -1 when unknown
	Mode        uint32    `json:"mode,omitempty"`        // permission bits of the source
	MTime       time.Time `json:"mtime,omitzero"`        // modification time of the source
	Fingerprint string    `json:"fingerprint,omitempty"` // equal for equal sources: the key of resuming
	Digest      DigestAlg `json:"digest,omitempty"`      // of the whole content, told in Finish
	Codec       Codec     `json:"codec,omitempty"`       // that chunks may have besides raw
	Policy      Policy    `json:"policy,omitzero"`       // which leaves must have it
	Force       bool      `json:"force,omitempty"`       // replace an existing file
	Preserve    bool      `json:"preserve,omitempty"`    // keep mode and mtime
	Hops        int       `json:"hops,omitempty"`        // daemons it may still pass
}

// Supersedes reports whether m, of the same transfer as before, is to take
// over from it: it is of a later attempt, or of the same over a hop that was
// dialled again.
func (m *Offer) Supersedes(before *Offer) bool {
	if m.Attempt != before.Attempt {
		return m.Attempt > before.Attempt
	}
	return slices.Compare(m.Redials, before.Redials) > 0
}

// Accept answers an Offer.
type Accept struct {
	Offset   int64  `json:"offset"`    // where the content goes on
	Window   int64  `json:"window"`    // bytes that may be unacknowledged
	MaxChunk int    `json:"max_chunk"` // content bytes in one Chunk
	Leaves   []Leaf `json:"leaves"`    // everyone behind this hop

	CRC bool `json:"crc32c,omitempty"` // Finish is to have one: a leaf may need it instead of the digest
}

// LeafState is how far a leaf is with a transfer.
type LeafState string

// The states of a leaf, in the order it passes them.
const (
	LeafWaiting   LeafState = "waiting"   // not connected yet, or busy with what it has; Text says why
	LeafReceiving LeafState = "receiving" // taking content
	LeafReady     LeafState = "ready"     // whole, checked, durable, hidden
	LeafPublished LeafState = "published" // under its name
	LeafUnchanged LeafState = "unchanged" // had the same content already
	LeafFailed    LeafState = "failed"    // Code and Text say why
)

func (s LeafState) known() bool {
	switch s {
	case LeafWaiting, LeafReceiving, LeafReady, LeafPublished, LeafUnchanged, LeafFailed:
		return true
	default:
		return false
	}
}

// Leaf is how one leaf stands. Its name is its path in the tree below the hop
// that the message came over; "" is the receiver itself.
type Leaf struct {
	Name   string    `json:"name"`
	State  LeafState `json:"state"`
	Offset int64     `json:"offset"` // content bytes it has taken
	Code   Code      `json:"code,omitempty"`
	Text   string    `json:"text,omitempty"`
	Serial bool      `json:"serial,omitempty"` // in Accept: it would rather have one file after the other
	Busy   float64   `json:"busy,omitempty"`   // seconds that it has been storing content
}

// Reject ends a stream: the transfer cannot go on there.
type Reject struct {
	Code   Code   `json:"code"`
	Text   string `json:"text"`
	Leaf   string `json:"leaf,omitempty"`
	Leaves []Leaf `json:"leaves,omitempty"`
}

// Progress tells how leaves do. It carries only those that changed.
type Progress struct {
	Leaves []Leaf `json:"leaves"`
}

// Leaves is the beginning of a list of leaves that is too long for one frame:
// the Accept, Ready or Reject that follows has the rest.
type Leaves struct {
	Leaves []Leaf `json:"leaves"`
}

// Finish ends the content. Without it nothing is a file.
type Finish struct {
	Size   int64  `json:"size"`
	Digest Digest `json:"digest,omitempty"`

	CRC *uint32 `json:"crc32c,omitempty"` // of the whole content, where Accept asks for it
}

// Ready says for each leaf whether it could publish now.
type Ready struct {
	Leaves []Leaf `json:"leaves"`
}

// Commit lets the leaves publish.
type Commit struct{}

// Abort makes the leaves forget the transfer, parts included. With a Code it
// has failed elsewhere and will not go on: they keep what another push could
// resume, and nothing open.
type Abort struct {
	Code Code   `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
}

// Receipt is the final word of one leaf.
type Receipt struct {
	Leaf        string    `json:"leaf"`
	Status      LeafState `json:"status"` // published, unchanged or failed
	Bytes       int64     `json:"bytes"`
	Digest      Digest    `json:"digest,omitempty"`
	Location    string    `json:"location,omitempty"`
	ResumedFrom int64     `json:"resumed_from,omitempty"`
	Seconds     float64   `json:"seconds"`
	Code        Code      `json:"code,omitempty"`
	Text        string    `json:"text,omitempty"`
}

// Query asks a daemon for its Status and that of the daemons below it.
type Query struct {
	Hops int `json:"hops,omitempty"`
}

// Status is what one daemon of the tree is doing.
type Status struct {
	Node      string           `json:"node"` // path in the tree, "" for the daemon asked
	Agent     string           `json:"agent,omitempty"`
	Sink      string           `json:"sink,omitempty"`
	Uptime    float64          `json:"uptime_seconds,omitempty"`
	Sessions  int              `json:"sessions,omitempty"`
	Running   int              `json:"running,omitempty"`      // transfers under way, listed or not
	Memory    int64            `json:"memory,omitempty"`       // given to transfers, where that is bounded
	MemoryMax int64            `json:"memory_limit,omitempty"` // the bound
	Transfers []TransferStatus `json:"transfers,omitempty"`
	Error     string           `json:"error,omitempty"` // the daemon could not be asked
}

// TransferStatus is one transfer under way at a daemon.
type TransferStatus struct {
	ID         string      `json:"id"`
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Offset     int64       `json:"offset"` // acknowledged
	Phase      string      `json:"phase"`
	Seconds    float64     `json:"seconds"`
	Received   int64       `json:"received,omitempty"`   // offset to which content has come
	Rate       float64     `json:"rate,omitempty"`       // bytes a second, since the offer was accepted
	Spent      Spent       `json:"spent,omitzero"`       // seconds in each stage, at a leaf
	Bottleneck string      `json:"bottleneck,omitempty"` // what holds it up
	Held       float64     `json:"held,omitempty"`       // for so many seconds
	Readers    []HopStatus `json:"readers,omitempty"`    // at a broadcaster, of each hop
}

// HopStatus is one transfer on its way over one hop.
type HopStatus struct {
	Reader     string    `json:"reader"`
	State      LeafState `json:"state"`
	Offset     int64     `json:"offset"` // acknowledged
	Lag        int64     `json:"lag,omitempty"`
	Rate       float64   `json:"rate,omitempty"`       // bytes a second, since the offer was accepted
	Spent      Spent     `json:"spent,omitzero"`       // seconds in each stage, at the sending end
	Busy       float64   `json:"busy,omitempty"`       // seconds that the reader says it has been storing content
	Bottleneck string    `json:"bottleneck,omitempty"` // what its time goes into
	Text       string    `json:"text,omitempty"`
}

// Kind is the kind of frame that carries the message.
func (*Hello) Kind() Kind    { return KindHello }
func (*Offer) Kind() Kind    { return KindOffer }
func (*Accept) Kind() Kind   { return KindAccept }
func (*Reject) Kind() Kind   { return KindReject }
func (*Progress) Kind() Kind { return KindProgress }
func (*Finish) Kind() Kind   { return KindFinish }
func (*Ready) Kind() Kind    { return KindReady }
func (*Commit) Kind() Kind   { return KindCommit }
func (*Abort) Kind() Kind    { return KindAbort }
func (*Receipt) Kind() Kind  { return KindReceipt }
func (*Query) Kind() Kind    { return KindQuery }
func (*Status) Kind() Kind   { return KindStatus }
func (*Leaves) Kind() Kind   { return KindLeaves }

// AppendMessage appends m as a whole frame to b. It fails when m is not valid
// or does not fit into MaxControl bytes.
func AppendMessage(b []byte, m Message) ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("own %s: %w", m.Kind(), err)
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("own %s: %w", m.Kind(), err)
	}
	if len(payload) > MaxControl {
		return nil, Errorf(CodeInternal, "own %s of %d bytes, the limit is %d", m.Kind(), len(payload), MaxControl)
	}
	var flags uint8
	if m.Kind() == KindProgress {
		flags = FlagSkip
	}
	return AppendFrame(b, m.Kind(), flags, payload), nil
}

// ParseMessage decodes and validates the payload of a control frame. Absent
// fields get the defaults that the type documents.
func ParseMessage(kind Kind, payload []byte) (Message, error) {
	var m Message
	switch kind {
	case KindHello:
		m = &Hello{}
	case KindOffer:
		m = &Offer{Size: -1}
	case KindAccept:
		m = &Accept{}
	case KindReject:
		m = &Reject{}
	case KindProgress:
		m = &Progress{}
	case KindFinish:
		m = &Finish{Size: -1}
	case KindReady:
		m = &Ready{}
	case KindCommit:
		m = &Commit{}
	case KindAbort:
		m = &Abort{}
	case KindReceipt:
		m = &Receipt{}
	case KindQuery:
		m = &Query{}
	case KindStatus:
		m = &Status{}
	case KindLeaves:
		m = &Leaves{}
	case KindChunk, KindAck, KindLimit, KindPing, KindPong:
		return nil, Errorf(CodeInternal, "%s is not a JSON message", kind)
	default:
		return nil, Errorf(CodeProtocol, "no message of kind %d", uint8(kind))
	}
	if len(payload) > 0 {
		if err := json.Unmarshal(payload, m); err != nil {
			code := CodeProtocol
			var e *Error
			if errors.As(err, &e) { // of a field that parses itself
				code = e.Code
			}
			return nil, Errorf(code, "%s: %v", kind, err)
		}
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return m, nil
}
