package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"
)

// What a processor that hashes passwords does to a proxy that knows of none: how much
// of what the gateway's callers feel of logins is the machine's doing, and how much
// the gateway's.

// hashAtIdlePriority hashes, like the gateway's workers and at their priority, until
// it is killed.
func hashAtIdlePriority() error {
	runtime.LockOSThread()
	idle := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	if err := unix.SchedSetAttr(0, idle, 0); err != nil {
		return fmt.Errorf("giving way to others: %w", err)
	}
	for {
		if _, err := bcrypt.GenerateFromPassword([]byte(accountPassword), bcrypt.DefaultCost); err != nil {
			return err
		}
	}
}

// besideHash measures nginx with and without such a process beside it.
func (b *bench) besideHash(c *benchCase) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := b.site.room("hash")
	if err != nil {
		return err
	}
	s, err := b.site.start(b.ctx, server{kind: nginx})
	if err != nil {
		return err
	}
	defer s.stop()
	requests, err := c.requests(s, entry{})
	if err != nil {
		return err
	}
	without, with := b.row(c, rowNginxAlone), b.row(c, rowNginxHash)
	perSecond := 0.0
	for round := range b.rounds {
		b.begin(c.name+", nginx", round)
		if round == 0 {
			if err := b.saturate(s, without, requests, clients); err != nil {
				return err
			}
			perSecond = slowest([]*Row{without}) / 2
		}
		if err := b.halfLoad(s, without, requests, clients, perSecond); err != nil {
			return err
		}
		hash, err := startProcess(dir, "hash", self, "hash")
		if err != nil {
			return err
		}
		err = b.halfLoad(s, with, requests, clients, perSecond)
		hash.stop()
		if err != nil {
			return err
		}
	}
	return nil
}
