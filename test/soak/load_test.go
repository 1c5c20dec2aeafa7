// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// configuration is the path of the exporter's configuration in folder.
func configuration(folder string) string { return filepath.Join(folder, "config.yml") }

// load makes what each probe counts, one kind in each goroutine, at a pace
// that leaves the machine to others.
type load struct {
	cancel  context.CancelFunc
	working sync.WaitGroup
	done    map[string]*atomic.Int64
	failed  chan error
}

const pace = 5 * time.Millisecond

func startLoad(t *testing.T, folder string) *load {
	t.Helper()
	watched := filepath.Join(folder, "watched")
	rules := fmt.Sprintf("file_access:\n  defaults: true\n  rules:\n  - path: %s\n    read: info\n    write: critical\n", watched)
	for path, text := range map[string]string{watched: "x", configuration(folder): rules} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]func() error{
		"exec":      func() error { return exec.Command("/bin/true").Run() },
		"file":      func() error { return readAndReplace(watched) },
		"privilege": changeIDs,
		"tcp":       exchangeTCP,
		"udp":       exchangeUDP,
		"failure":   refused,
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, done: map[string]*atomic.Int64{}, failed: make(chan error, len(kinds))}
	t.Cleanup(cancel)
	for name, once := range kinds {
		n := &atomic.Int64{}
		l.done[name] = n
		l.working.Go(func() {
			for ; ctx.Err() == nil; pause(ctx, pace) {
				if err := once(); err != nil {
					l.failed <- fmt.Errorf("%s: %w", name, err)
					return
				}
				n.Add(1)
			}
		})
	}
	return l
}

// stop ends the load and says how often each thing was done.
func (l *load) stop(t *testing.T) string {
	t.Helper()
	l.cancel()
	l.working.Wait()
	close(l.failed)
	for err := range l.failed {
		t.Errorf("load: %v", err)
	}
	var words []string
	for name, n := range l.done {
		words = append(words, fmt.Sprintf("%d %s", n.Load(), name))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

func readAndReplace(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	next := path + ".new"
	return errors.Join(os.WriteFile(next, text, 0o600), os.Rename(next, path))
}

// changeIDs changes those of one thread, which ends with it.
func changeIDs() error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies here
		const same = ^uintptr(0)
		for _, ids := range [][3]uintptr{{same, 1000, same}, {same, 0, same}} {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ids[0], ids[1], ids[2]); errno != 0 {
				failed <- errno
				return
			}
		}
		failed <- nil
	}()
	return <-failed
}

func exchangeTCP() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return err
	}
	server, err := listener.Accept()
	if err != nil {
		return errors.Join(err, client.Close())
	}
	// A reset leaves no port waiting.
	return errors.Join(client.(*net.TCPConn).SetLinger(0), client.Close(), server.Close())
}

func exchangeUDP() error {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer server.Close()
	client, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		return err
	}
	_, _, err = server.ReadFrom(make([]byte, 1))
	return err
}

// refused is a connection to a port that nobody listens on.
func refused() error {
	connection, err := net.Dial("tcp", "127.0.0.1:1")
	if err == nil {
		return errors.Join(errors.New("somebody listens on port 1"), connection.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return nil
}
