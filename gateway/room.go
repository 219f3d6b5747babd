package gateway

import (
	"net/netip"
	"sync"
)

const (
	defaultConnections = 256 << 10
	// How many refused connections may wait for their clients to read the answer.
	maxLingering = 64
)

// room counts the connections that are open, in all and per address.
type room struct {
	limit, perAddress int // perAddress 0: as many as there is room for

	mu        sync.Mutex
	open      int
	addresses map[netip.Addr]int
	lingering int
}

func newRoom(limit, perAddress int) *room {
	if limit <= 0 {
		limit = defaultConnections
	}
	return &room{limit: limit, perAddress: perAddress, addresses: map[netip.Addr]int{}}
}

// enter counts a connection, if there is room.
func (r *room) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open >= r.limit {
		return false
	}
	r.open++
	return true
}

// join counts a connection for its address, if there is room. The key it is counted
// under is the zero one if it is not.
func (r *room) join(addr netip.Addr) (netip.Addr, bool) {
	if r.perAddress <= 0 || !addr.IsValid() {
		return netip.Addr{}, true
	}
	addr = networkOf(addr)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.addresses[addr] >= r.perAddress {
		return netip.Addr{}, false
	}
	r.addresses[addr]++
	return addr, true
}

// networkOf is what one client is counted by: an IPv4 address, or the first of the
// /64 of an IPv6 address, because whoever has one of these has them all.
func networkOf(addr netip.Addr) netip.Addr {
	if addr = addr.Unmap(); !addr.Is6() {
		return addr
	}
	return netip.PrefixFrom(addr.WithZone(""), 64).Masked().Addr()
}

// leave is for a connection that ends. It was counted under key, if that is valid.
func (r *room) leave(key netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open--
	if !key.IsValid() {
		return
	}
	if r.addresses[key]--; r.addresses[key] == 0 {
		delete(r.addresses, key)
	}
}

// lingers runs end in a goroutine of its own, unless too many do so already.
func (r *room) lingers(end func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lingering >= maxLingering {
		return false
	}
	r.lingering++
	go func() {
		end()
		r.mu.Lock()
		r.lingering--
		r.mu.Unlock()
	}()
	return true
}
