// Package faults has no code of its own, only tests: of client, broadcaster
// and readers together, in one process, while what lies between them fails.
package faults
