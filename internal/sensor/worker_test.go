// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/testkit"
)

func TestMain(m *testing.M) {
	testkit.Main(m, map[string]testkit.Worker{"host": {
		"setgid": func(args ...string) (string, error) {
			n, err := strconv.Atoi(args[0])
			for range n {
				if _, _, e := unix.RawSyscall(unix.SYS_SETGID, uintptr(os.Getgid()), 0, 0); e != 0 {
					return "", e
				}
			}
			return "", err
		},
		// calls a second, for so many milliseconds; how many were made
		"paced": func(args ...string) (string, error) {
			rate, err := strconv.ParseFloat(args[0], 64)
			if err != nil {
				return "", err
			}
			span, err := strconv.Atoi(args[1])
			n := 0
			for begin := time.Now(); time.Since(begin) < time.Duration(span)*time.Millisecond; {
				for ; float64(n) < rate*time.Since(begin).Seconds(); n++ {
					if _, _, e := unix.RawSyscall(unix.SYS_SETGID, uintptr(os.Getgid()), 0, 0); e != 0 {
						return "", e
					}
				}
				time.Sleep(time.Millisecond)
			}
			return strconv.Itoa(n), err
		},
		"nobody": func(...string) (string, error) {
			if err := syscall.Setgid(65534); err != nil {
				return "", err
			}
			if err := syscall.Setuid(65534); err != nil {
				return "", err
			}
			return pageHere()
		},
		"no_btf": func(...string) (string, error) {
			if err := cover("/sys/kernel/btf"); err != nil {
				return "", err
			}
			return pageHere()
		},
		"no_tracefs": func(...string) (string, error) {
			for _, path := range []string{"/sys/kernel/tracing", "/sys/kernel/debug"} {
				if err := cover(path); err != nil {
					return "", err
				}
			}
			return withoutSysAdmin()
		},
		"page":  func(...string) (string, error) { return pageHere() },
		"visit": visit,
	}})
}

// cover hides a folder; the worker has a mount namespace of its own.
func cover(path string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return nil
}

// withoutSysAdmin is the page of a child that lacks CAP_SYS_ADMIN, in the same
// mount namespace. The bounding set is a thread's own, and a child gets it.
func withoutSysAdmin() (string, error) {
	runtime.LockOSThread() // never unlocked
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
		return "", fmt.Errorf("drop CAP_SYS_ADMIN: %w", err)
	}
	child := exec.Command("/proc/self/exe")
	child.Stdin, child.Stderr = strings.NewReader("page\n"), os.Stderr
	out, err := child.Output()
	if err != nil {
		return "", err
	}
	text, ok := strings.CutPrefix(string(out), "ok ")
	if !ok {
		return "", fmt.Errorf("child: %s", out)
	}
	return strings.TrimSpace(text), nil
}

// pageHere runs a manager in the worker and returns its first scrape.
func pageHere() (string, error) {
	m := New(defaults(slog.NewTextHandler(os.Stderr, nil)))
	m.Start(context.Background())
	p, err := scrape(m)
	if err != nil {
		return "", err
	}
	if problems := p.problems(m); problems != nil {
		return "", fmt.Errorf("%v", problems)
	}
	if err := m.Close(); err != nil {
		return "", err
	}
	text, err := json.Marshal(p)
	return string(text), err
}

// TestPoorHosts starts the manager where something is missing. Each says why,
// and the rest goes on.
func TestPoorHosts(t *testing.T) {
	host := testkit.Inspect(t)
	for _, c := range []struct {
		name, status string
		up           float64
		probes       map[string][2]string // state and reason
	}{
		{"nobody", "degraded", 0, map[string][2]string{
			"process": {"denied", "no_permission"}, "network": {"denied", "no_permission"},
			"file": {"denied", "no_permission"}, "privilege": {"denied", "no_permission"},
			"kernel": {"denied", "no_permission"},
		}},
		{"no_btf", "degraded", 0, map[string][2]string{
			"process": {"unsupported", "no_btf"}, "network": {"unsupported", "no_btf"},
			"file": {"unsupported", "no_btf"}, "privilege": {"unsupported", "no_btf"},
			"kernel": {"unsupported", "no_btf"},
		}},
		{"no_tracefs", "partial", 1, map[string][2]string{
			"process": {"attached", "none"}, "network": {"attached", "none"},
			"file": {"unsupported", "no_tracefs"}, "privilege": {"unsupported", "no_tracefs"},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			worker := testkit.NewCgroup(t, host).StartWith(t, "host", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
			var p page
			if err := json.Unmarshal([]byte(worker.Do(c.name)), &p); err != nil {
				t.Fatal(err)
			}
			p.expectUp(t, c.status, c.up)
			for name, want := range c.probes {
				p.expectProbe(t, name, want[0], want[1])
			}
		})
	}
}
