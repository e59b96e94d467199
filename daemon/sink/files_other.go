//go:build !unix

package sink

import "os"

// ignoreUnsupported passes over the error of systems that cannot sync a
// directory: Windows makes renames durable by itself.
func ignoreUnsupported(error) error { return nil }

// tryLock does nothing where there is no flock: there a file that is open for
// writing cannot be removed or renamed by another process anyway.
func tryLock(*os.File) error { return nil }
