package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// TestLimitsInRedis tells what needs a Redis server.
func TestLimitsInRedis(t *testing.T) {
	url := os.Getenv("REDIS_URL")
	switch {
	case url == "" && os.Getenv("REQUIRE_REDIS") != "":
		t.Fatal("REQUIRE_REDIS is set, but REDIS_URL is not")
	case url == "":
		t.Skip("REDIS_URL is not set: skipped")
	}
	tell(t, "testdata/redis", "")
}

// newCaller is an address that no other run has called from.
func newCaller() string {
	return fmt.Sprintf("2001:db8:%x:%x::1", rand.Uint32N(1<<16), rand.Uint32N(1<<16))
}
