// Digests: hashes of the whole content, end to end.

package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"hash/crc32"
	"strings"

	"github.com/zeebo/blake3"
	"github.com/zeebo/xxh3"
)

// DigestAlg names a hash function.
type DigestAlg string

// The digest algorithms. XXH128 finds every accident and is free at wire
// speed (31 GB/s a core, as rsync chose); SHA256 and BLAKE3 also withstand a
// forger.
const (
	DigestXXH128 DigestAlg = "xxh128"
	DigestSHA256 DigestAlg = "sha256"
	DigestBLAKE3 DigestAlg = "blake3"
	DigestNone   DigestAlg = "none"
)

// ParseDigestAlg reads the name of an algorithm.
func ParseDigestAlg(s string) (DigestAlg, error) {
	a := DigestAlg(s)
	return a, a.validate()
}

func (a DigestAlg) validate() error {
	switch a {
	case DigestXXH128, DigestSHA256, DigestBLAKE3, DigestNone:
		return nil
	default:
		return Errorf(CodeUnsupported, "unknown digest %q, want xxh128, sha256, blake3 or none", string(a))
	}
}

func (a DigestAlg) size() int {
	switch a {
	case DigestXXH128:
		return 16
	case DigestSHA256, DigestBLAKE3:
		return 32
	case DigestNone:
	}
	return 0
}

// Digest is a hash in the form "algorithm:hex", or "" for none.
type Digest string

func (d Digest) validate() error {
	if d == "" {
		return nil
	}
	name, sum, ok := strings.Cut(string(d), ":")
	alg := DigestAlg(name)
	raw, err := hex.DecodeString(sum)
	if !ok || err != nil || alg.validate() != nil || len(raw) != alg.size() || alg == DigestNone {
		return Errorf(CodeProtocol, "bad digest %q", string(d))
	}
	return nil
}

// Algorithm is the algorithm of d.
func (d Digest) Algorithm() DigestAlg {
	if d == "" {
		return DigestNone
	}
	name, _, _ := strings.Cut(string(d), ":")
	return DigestAlg(name)
}

// Hasher computes a Digest of content that it is given in order, and perhaps
// its CRC32C. That one can be taken up from its value, which the state of a
// digest cannot: it is for those who cannot read back what they have.
type Hasher struct {
	alg DigestAlg
	h   hash.Hash // nil for none
	xxh *xxh3.Hasher128
	crc *uint32 // nil: not wanted
}

// NewHasher returns a Hasher for alg, which must be valid.
func NewHasher(alg DigestAlg) *Hasher {
	h := &Hasher{alg: alg}
	switch alg {
	case DigestXXH128:
		h.xxh = xxh3.New128()
	case DigestSHA256:
		h.h = sha256.New()
	case DigestBLAKE3:
		h.h = blake3.New()
	case DigestNone:
	}
	return h
}

// Write adds p; it never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	if h.crc != nil {
		*h.crc = crc32.Update(*h.crc, castagnoli, p)
	}
	switch {
	case h.xxh != nil:
		return h.xxh.Write(p)
	case h.h != nil:
		return h.h.Write(p)
	}
	return len(p), nil
}

// AddCRC makes h compute the CRC32C too, of what is written from now on after
// content that has crc; 0 for none.
func (h *Hasher) AddCRC(crc uint32) { h.crc = &crc }

// CRC is the CRC32C so far, nil when it was not asked for.
func (h *Hasher) CRC() *uint32 {
	if h.crc == nil {
		return nil
	}
	crc := *h.crc
	return &crc
}

// Digest is the digest of all that was written so far; more can follow.
func (h *Hasher) Digest() Digest {
	var sum []byte
	switch {
	case h.xxh != nil:
		b := h.xxh.Sum128().Bytes()
		sum = b[:]
	case h.h != nil:
		sum = h.h.Sum(nil)
	default:
		return ""
	}
	return Digest(string(h.alg) + ":" + hex.EncodeToString(sum))
}
