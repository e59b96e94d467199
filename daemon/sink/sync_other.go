//go:build !unix

package sink

// ignoreUnsupported passes over the error of systems that cannot sync a
// directory: Windows makes renames durable by itself.
func ignoreUnsupported(error) error { return nil }
