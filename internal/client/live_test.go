// SPDX-License-Identifier: Apache-2.0

package client

import (
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"security-exporter/internal/api"
)

// session is top in a terminal of its own.
type session struct {
	cmd      *exec.Cmd
	terminal *os.File // our end
	slave    *os.File
	before   unix.Termios
	seen     *lockedBuffer
}

func startTop(t *testing.T, args ...string) *session {
	t.Helper()
	s := &session{seen: &lockedBuffer{}}
	var err error
	if s.terminal, s.slave, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.terminal.Close(); _ = s.slave.Close() })
	s.resize(t, 60, 10)
	s.before = s.termios(t)
	s.cmd = exec.Command("/proc/self/exe", append([]string{"top", "--interval=500ms"}, args...)...)
	s.cmd.Env = append(os.Environ(), asClient+"=1")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.slave, s.slave, s.slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := s.terminal.Read(buf)
			_, _ = s.seen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *session) termios(t *testing.T) unix.Termios {
	t.Helper()
	tio, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *tio
}

func (s *session) resize(t *testing.T, columns, rows uint16) {
	t.Helper()
	if err := pty.Setsize(s.terminal, &pty.Winsize{Cols: columns, Rows: rows}); err != nil {
		t.Fatal(err)
	}
}

func (s *session) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := s.terminal.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// last is the screen drawn last, as lines.
func (s *session) last() []string {
	frames := strings.Split(s.seen.String(), toTop)
	for i := len(frames) - 1; i > 0; i-- {
		if frame, _, whole := strings.Cut(frames[i], clearBelow); whole {
			return strings.Split(strings.ReplaceAll(frame, clearLine, ""), "\r\n")
		}
	}
	return nil
}

func (s *session) shows(text string) func() bool {
	return func() bool { return strings.Contains(strings.Join(s.last(), "\n"), text) }
}

// ended asserts that top ends with a code and leaves the terminal as it was.
func (s *session) ended(t *testing.T, code int) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatalf("top does not end; it shows %q", s.last())
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit %d, want %d", got, code)
	}
	if after := s.termios(t); !reflect.DeepEqual(after, s.before) {
		t.Errorf("terminal %+v, was %+v", after, s.before)
	}
	wait(t, "the old screen is back", func() bool { return strings.HasSuffix(s.seen.String(), leaveScreen) })
}

func TestLiveKeys(t *testing.T) {
	t.Parallel()
	path, _, src := exporter(t)
	s := startTop(t, "--api.address="+path)
	wait(t, "the list", s.shows("70 ±3  0123456789abcde~  /tmp/"))
	if tio := s.termios(t); tio.Lflag&(unix.ICANON|unix.ECHO) != 0 {
		t.Error("the terminal is not raw")
	}
	screen := strings.Join(s.last(), "\n")
	if !strings.HasPrefix(screen, "security-exporter top: exec, last 10m0s, every 500ms") || strings.ContainsAny(screen, "\x1b\x07") {
		t.Errorf("shows %q", screen)
	}
	src.mu.Lock()
	src.entries = []api.Entry{{Key: "/usr/bin/new", Count: 9000}}
	src.mu.Unlock()
	wait(t, "what is new", s.shows("/usr/bin/new"))
	s.press(t, "x\x1b[A\x1b[C\x1bOF\x1b[3~c")
	wait(t, "the other list", s.shows("192.0.2.1"))
	s.press(t, "C")
	wait(t, "the third list", s.shows("top: connect_process, last"))
	s.press(t, "c")
	wait(t, "the other list again", s.shows("192.0.2.1"))
	if !s.shows("REMOTE ADDRESS")() {
		t.Errorf("shows %q", s.last())
	}
	s.press(t, "q")
	s.ended(t, 0)
}

func TestLiveResizes(t *testing.T) {
	t.Parallel()
	path, _, _ := exporter(t)
	s := startTop(t, "--api.address="+path)
	wait(t, "the list", s.shows("/usr/bin/less"))
	for _, size := range [][2]uint16{{20, 4}, {200, 50}, {1, 1}, {33, 5}} {
		s.resize(t, size[0], size[1])
		wait(t, "it fits", func() bool {
			lines := s.last()
			longest := 0
			for _, l := range lines {
				columns := 0
				for _, r := range l {
					columns += cells(r)
				}
				longest = max(longest, columns)
			}
			return len(lines) == min(6, int(size[1])) && longest <= int(size[0]) && (size[0] < 100 || longest > 60)
		})
	}
	s.press(t, "\x03")
	s.ended(t, 0)
}

func TestLiveSignals(t *testing.T) {
	t.Parallel()
	path, _, _ := exporter(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		s := startTop(t, "--api.address="+path)
		wait(t, "the list", s.shows("/usr/bin/less"))
		if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		s.ended(t, 0)
	}
}

// An exporter that fails later is an error on the screen, and the end of it
// shows the next list.
func TestLiveSurvivesErrors(t *testing.T) {
	t.Parallel()
	path, _, src := exporter(t)
	s := startTop(t, "--api.address="+path)
	wait(t, "the list", s.shows("/usr/bin/less"))
	src.mu.Lock()
	src.err = os.ErrClosed
	src.mu.Unlock()
	wait(t, "the error", s.shows("no answer, trying again: the exporter answers: file"))
	src.mu.Lock()
	src.err = nil
	src.mu.Unlock()
	wait(t, "the list again", s.shows("/usr/bin/less"))
	s.press(t, "q")
	s.ended(t, 0)
}

// Without an exporter the screen is left alone.
func TestLiveWithoutExporter(t *testing.T) {
	t.Parallel()
	s := startTop(t, "--api.address=/nope/s")
	_ = s.cmd.Wait()
	wait(t, "the error", func() bool { return strings.Contains(s.seen.String(), "/nope/s does not exist") })
	if strings.Contains(s.seen.String(), "\x1b") || s.cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit %d, %q", s.cmd.ProcessState.ExitCode(), s.seen.String())
	}
}
