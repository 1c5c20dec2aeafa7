// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// threadPrivileges is what /proc/PID/task/TID/status says of each thread, and
// how many threads say so.
func threadPrivileges(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	out := map[string]int{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var lines []string
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch key {
			case "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp":
				lines = append(lines, key+" "+strings.TrimLeft(value, "0"))
			}
		}
		out[strings.Join(lines, ", ")]++
	}
	return out
}

// As root the exporter keeps the six capabilities that its parts need, on
// every thread, and shows that.
func TestPrivilegesAreGivenUp(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it has capabilities to give up")
	}
	for _, c := range []struct {
		args       []string
		bits, text string
	}{
		{[]string{"--ebpf.enabled"}, "c040281004", "dac_read_search net_admin sys_ptrace sys_admin audit_control perfmon bpf"},
		{nil, "40281004", "dac_read_search net_admin sys_ptrace sys_admin audit_control"},
		{[]string{"--no-collector.firewall", "--no-collector.sysctl", "--no-collector.audit", "--no-collector.checks", "--no-collector.ports"}, "4", "dac_read_search"},
	} {
		p := start(t, c.args...)
		waitReady(t, p)
		privileges := threadPrivileges(t, p.cmd.Process.Pid)
		want := "CapInh , CapPrm " + c.bits + ", CapEff " + c.bits + ", CapAmb , NoNewPrivs 1, Seccomp 2"
		if len(privileges) != 1 || privileges[want] == 0 {
			t.Errorf("%v: threads have %v, want all %s", c.args, privileges, want)
		}
		series := `security_exporter_hardening_info{capabilities="` + c.text + `",no_new_privs="true",seccomp="true"}`
		if v := value(t, p.page(t), series); v != 1 {
			t.Errorf("%v: %s is %v", c.args, series, v)
		}
		p.stop(t)
	}
}

func TestPrivilegesAreKept(t *testing.T) {
	t.Parallel()
	p := start(t, "--no-harden")
	waitReady(t, p)
	for privileges := range threadPrivileges(t, p.cmd.Process.Pid) {
		if !strings.HasSuffix(privileges, "NoNewPrivs , Seccomp ") {
			t.Errorf("with --no-harden: %s", privileges)
		}
	}
	p.stop(t)
}

// A unit of Type=notify hears of the start, of each half interval of its
// watchdog, and of the end.
func TestNotify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "200000")
	p := start(t)
	expect := func(want string) {
		t.Helper()
		_ = socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		for buf := make([]byte, 100); ; {
			n, err := socket.Read(buf)
			if err != nil {
				t.Fatalf("no %s: %v", want, err)
			}
			got := string(buf[:n])
			if got == want {
				return
			}
			if got != "WATCHDOG=1" {
				t.Errorf("%s, want %s", got, want)
			}
		}
	}
	expect("READY=1")
	expect("WATCHDOG=1")
	expect("WATCHDOG=1")
	p.stop(t)
	expect("STOPPING=1")
}
