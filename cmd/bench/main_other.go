//go:build !linux

// Command bench measures the gateway beside nginx and HAProxy. It needs Linux,
// whose accounting it reads.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: this needs Linux, whose accounting of processes it reads")
	os.Exit(1)
}
