package protocol

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var digestAlgs = []DigestAlg{DigestXXH128, DigestSHA256, DigestBLAKE3, DigestNone}

// The vectors come from other implementations, so that a file can be checked
// with xxh128sum, sha256sum and b3sum.
func TestDigestVectors(t *testing.T) {
	tests := []struct {
		alg     DigestAlg
		content string
		want    Digest
	}{
		{DigestXXH128, "", xxh128Empty},
		{DigestXXH128, "hello", "xxh128:b5e9c1ad071b3e7fc779cfaa5e523818"},
		{DigestSHA256, "", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{DigestSHA256, "hello", sha256Hello},
		{DigestBLAKE3, "", "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
		{DigestBLAKE3, "hello", "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"},
		{DigestNone, "", ""},
		{DigestNone, "hello", ""},
	}
	for _, tt := range tests {
		h := NewHasher(tt.alg)
		n, err := h.Write([]byte(tt.content))
		require.NoError(t, err)
		assert.Equal(t, len(tt.content), n)
		assert.Equal(t, tt.want, h.Digest(), "%s of %q", tt.alg, tt.content)
		assert.NoError(t, h.Digest().validate())
		assert.Equal(t, tt.alg, h.Digest().Algorithm())
	}
}

func TestDigestInPartsIsTheDigestOfTheWhole(t *testing.T) {
	content := random(300_000, 9)
	for _, alg := range digestAlgs {
		t.Run(string(alg), func(t *testing.T) {
			whole := NewHasher(alg)
			_, _ = whole.Write(content)
			parts := NewHasher(alg)
			for rest, n := content, 0; len(rest) > 0; rest = rest[n:] {
				n = min(1+7*n/2, len(rest)) // 1, 4, 15, 53 … bytes: across every block size
				_, _ = parts.Write(rest[:n])
				_ = parts.Digest() // a look in between must not disturb it
			}
			assert.Equal(t, whole.Digest(), parts.Digest())
			if alg != DigestNone {
				_, _ = parts.Write([]byte{0})
				assert.NotEqual(t, whole.Digest(), parts.Digest())
			}
		})
	}
}

// A CRC goes on from its value, with no more than that; it is that of RFC 3720
// whose check value for "123456789" is e3069283.
func TestHasherCRCGoesOn(t *testing.T) {
	h := NewHasher(DigestNone)
	_, _ = h.Write([]byte("x"))
	assert.Nil(t, h.CRC(), "not asked for")
	h.AddCRC(0)
	assert.Zero(t, *h.CRC())
	_, _ = h.Write([]byte("1234"))
	again := NewHasher(DigestXXH128)
	again.AddCRC(*h.CRC())
	_, _ = again.Write([]byte("56789"))
	assert.Equal(t, uint32(0xe3069283), *again.CRC())
}

func TestParseDigestAlg(t *testing.T) {
	for _, alg := range digestAlgs {
		got, err := ParseDigestAlg(string(alg))
		require.NoError(t, err)
		assert.Equal(t, alg, got)
	}
	for _, name := range []string{"", "md5", "SHA256", "sha-256"} {
		_, err := ParseDigestAlg(name)
		assert.True(t, HasCode(err, CodeUnsupported), "%q: %v", name, err)
	}
}
