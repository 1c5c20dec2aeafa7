// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// answerTimeout is how long a socket that is there may take to accept.
	answerTimeout = time.Second
	// lockTimeout is how long another exporter may look at the directory.
	lockTimeout = 2 * time.Second
)

// socket is a listening Unix socket and the file it made.
type socket struct {
	path     string
	listener *net.UnixListener
	made     fs.FileInfo
}

// listenSocket binds a Unix socket that only its owner may connect to. It
// makes the directory if it is missing, and replaces a socket of the same user
// that nobody listens on. Anything else at the path is an error and stays.
func listenSocket(path string) (*socket, error) {
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := makeWay(path); err != nil {
		return nil, err
	}
	// The mode of the file is that of the descriptor, less the umask
	// (unix_bind in net/unix/af_unix.c): no moment is left in which others may
	// connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, modeErr)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("%s: listening gave a %T", path, l)
	}
	listener.SetUnlinkOnClose(false) // remove does, and looks first
	st, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &socket{path: path, listener: listener, made: st}, nil
}

// lockDirectory makes the directory of the socket if it is missing, and keeps
// other exporters from looking at it at the same time.
func lockDirectory(dir string) (unlock func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	fd, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	st, err := fd.Stat()
	if err == nil && st.Mode().Perm()&0o002 != 0 && st.Mode()&fs.ModeSticky == 0 {
		err = fmt.Errorf("%s: everybody may replace files in this directory; choose another", dir)
	}
	for start := time.Now(); err == nil; time.Sleep(10 * time.Millisecond) {
		if err = unix.Flock(int(fd.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			break
		}
		if errors.Is(err, unix.EWOULDBLOCK) && time.Since(start) < lockTimeout {
			err = nil
			continue
		}
		err = fmt.Errorf("%s: lock: %w", dir, err)
	}
	if err != nil {
		_ = fd.Close()
		return nil, err
	}
	return func() { _ = fd.Close() }, nil
}

// makeWay removes a stale socket of our own at path.
func makeWay(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s: exists and is no socket; remove it or choose another path", path)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: exists and belongs to another user; remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, answerTimeout)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%s: another process listens there; stop it or choose another path", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%s: exists, and whether it is in use is not known: %w", path, err)
	}
	return os.Remove(path)
}

// remove removes the file that listening made, unless something else has
// taken its place.
func (s *socket) remove() error {
	unlock, err := lockDirectory(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	defer unlock()
	st, err := os.Lstat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !os.SameFile(st, s.made) {
		return nil
	}
	return os.Remove(s.path)
}
