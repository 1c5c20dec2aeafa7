// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
)

const (
	// maxNamespaces bounds the network namespaces that are looked into.
	maxNamespaces = 1024
	// maxPaths is how many ways into each are kept, since processes end.
	maxPaths = 8
)

// fill enters the connections that are older than the exporter, one network
// namespace after the other. It runs in a thread of its own, which ends with
// it and so never carries a foreign namespace elsewhere.
func fill(p *probe.Probe) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		result <- fillNamespaces(p)
	}()
	err := <-result
	// from here on nothing older is entered, and connections may go into the sets
	if e := p.Variable("filling").Set(false); e != nil {
		err = errors.Join(err, fmt.Errorf("set filling: %w", e))
	}
	return errors.Join(err, empty(p.Map("listeners")))
}

func fillNamespaces(p *probe.Probe) error {
	paths := namespaces(p.Host())
	if _, err := p.Iterate("fill_sockets", 1); err != nil {
		return fmt.Errorf("older connections: %w", err)
	}
	own, err := identify("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("older connections: own network namespace: %w", err)
	}
	var missed int
	var first error
	for id, ways := range paths {
		if id == own {
			continue
		}
		err := enterAny(ways)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended with its processes
		}
		if err == nil {
			_, err = p.Iterate("fill_sockets", 1)
		}
		if err != nil {
			missed++
			if first == nil {
				first = err
			}
		}
	}
	if missed > 0 {
		p.Log().Info("older connections of some network namespaces are not known",
			"namespaces", len(paths), "missed", missed, "err", first)
	}
	return nil
}

// enterAny puts the calling thread into a namespace by the first way that is
// still there.
func enterAny(ways []string) error {
	var err error
	for _, path := range ways {
		if err = enter(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return err
}

func enter(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// namespace is a network namespace's identity: device and inode of nsfs.
type namespace struct{ device, inode uint64 }

func identify(path string) (namespace, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespace{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return namespace{uint64(st.Dev), st.Ino}, nil
}

// namespaces finds ways into each network namespace: those of processes, and
// those that have a name (ip-netns(8)) and perhaps no process.
func namespaces(host *probe.Host) map[namespace][]string {
	found := map[namespace][]string{}
	for _, pattern := range []string{
		filepath.Join(host.ProcFS, "[0-9]*/ns/net"),
		filepath.Join(host.RootFS, "run/netns/*"),
	} {
		paths, _ := filepath.Glob(pattern) // the pattern is well formed
		for _, path := range paths {
			id, err := identify(path)
			if err != nil || !isNamespace(path) {
				continue // the process is gone, or it is no namespace
			}
			if found[id] == nil && len(found) >= maxNamespaces {
				continue
			}
			if len(found[id]) < maxPaths {
				found[id] = append(found[id], path)
			}
		}
	}
	return found
}

// isNamespace keeps a plain file below /run/netns from being opened.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// empty gives the memory of a table back.
func empty(m *ebpf.Map) error {
	var key []byte
	for {
		if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("empty table: %w", err)
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("empty table: %w", err)
		}
	}
}
