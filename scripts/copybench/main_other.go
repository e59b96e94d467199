//go:build !linux

package main

import "log"

func main() { log.Fatal("copybench: this needs Linux") }
