//go:build !linux

// The bench reads /proc, which other systems do not have.

package main

import "fmt"

func main() { fmt.Println("bench: SKIPPED, it needs Linux") }
