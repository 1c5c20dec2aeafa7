// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// act is the real thing that makes an alert fire.
type act struct {
	alert, on string
	do        func(t *testing.T, w *world)
	// hostWide: the kernel counts it for the whole host, so another program
	// may make the alert fire too.
	hostWide bool
	// atOnce: the next act ends the state that the alert is about.
	atOnce bool
	// cannot says why this host cannot do it, if so.
	cannot func(t *testing.T) string
}

// alertOfTargets fires when the configuration has lost all targets, which the
// test does last.
const alertOfTargets = "SecurityExporterMissing"

// notDone are the alerts that no act makes fire here, and why: promtool's
// cases alone cover them.
var notDone = map[string]string{
	"SecurityModuleLoaded": "it would load a kernel module into the machine that runs the test, if that has module support at all; " +
		"that loads are counted is tested in the machines of tools/testkernels",
	"SecurityCountsLost": "no program can make the kernel's recursion guard refuse a run: that takes an interrupt within the few instructions of one",
}

var acts = []act{
	{alert: "SecurityNewListeningPort", on: "posture", do: openPort},
	{alert: "SecurityExporterDown", on: "gone", do: func(_ *testing.T, w *world) { w.exporters["gone"].process.stop() }},

	{alert: "SecurityConfigChanged", on: "posture", do: edit("etc/hosts.allow", "sshd: ALL\n")},
	{alert: "SecurityEmptyPassword", on: "posture", do: replace("etc/shadow", "alice:$y$j9T$0123456789abcdefghijkl$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG:", "alice::")},
	{alert: "SecuritySecondUIDZero", on: "posture", do: replace("etc/passwd", "deploy:x:1001:", "deploy:x:0:")},
	{alert: "SecuritySeriesDropped", on: "posture", do: manyAccounts},
	{alert: "SecurityCheckFailing", on: "posture", do: replace("etc/login.defs", "PASS_MAX_DAYS\t90", "PASS_MAX_DAYS\t99999")},
	{alert: "SecuritySSHRootLogin", on: "posture", do: replace("etc/ssh/sshd_config", "PermitRootLogin no", "PermitRootLogin yes")},
	{alert: "SecurityChecksFailing", on: "posture", do: weaken},
	{alert: "SecurityFirewallGone", on: "posture", do: flushFirewall},
	{alert: "SecuritySELinuxNotEnforcing", on: "posture", do: notEnforcing},
	{alert: "SecuritySysctlDrift", on: "posture", do: driftSysctl},
	{alert: "SecurityAuditOff", on: "posture", do: edit("etc/audit/audit.rules", "-w /etc/passwd -p wa\n"), cannot: auditInUse},
	{alert: "SecurityAuditLosing", on: "posture", do: loseAudit, cannot: auditInUse},
	{alert: "SecurityRebootRequired", on: "posture", do: edit("run/reboot-required", "*** System restart required ***\n")},
	{alert: "SecurityPatchesOld", on: "posture", do: agePatches},
	{alert: "SecurityCollectorFailing", on: "posture", do: breakCollector},
	{alert: "SecurityNoMandatoryAccessControl", on: "boot", do: func(t *testing.T, w *world) {
		w.write(t, "boot/kernel/security/lsm", "capability,landlock\n")
		w.exporters["boot"].restart(t)
	}},

	{alert: "SecurityExporterConfigNotApplied", on: "runtime", do: func(t *testing.T, w *world) {
		w.write(t, "config.yml", "file_access: {rulez: []}\n")
		if err := w.exporters["runtime"].process.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}},
	{alert: "SecuritySensitiveWrite", on: "runtime", do: func(t *testing.T, w *world) { w.write(t, "written", "x") }},
	{alert: "SecuritySensitiveReadBurst", on: "runtime", do: func(t *testing.T, w *world) { w.read(t, 500) }},
	{alert: "SecurityEventsLost", on: "runtime", hostWide: true, do: func(t *testing.T, w *world) { w.read(t, 200_000) }},
	{alert: "SecuritySuspiciousExec", on: "runtime", hostWide: true, do: func(t *testing.T, w *world) {
		shellOnSocket(t)
		programInTmp(t, w)
	}},
	{alert: "SecurityPrivilegeGainBurst", on: "runtime", hostWide: true, do: gainPrivileges},
	{alert: "SecurityUnexpectedPrivilegeGain", on: "runtime", hostWide: true, do: gainUnseen, cannot: func(t *testing.T) string {
		if runtime.GOARCH != "amd64" {
			return "it takes a 32-bit call of a 64-bit program"
		}
		var exit *exec.ExitError
		if err := runCode(t, t.TempDir(), exitBy32Bit); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGSEGV {
			return "its kernel takes no 32-bit calls"
		} else if err != nil {
			t.Fatal(err)
		}
		return ""
	}},
	{alert: "SecurityConnectRefusedBurst", on: "runtime", hostWide: true, do: func(t *testing.T, _ *world) { connectRefused(t, 5000) }},
	{alert: "SecurityConnectErrorBurst", on: "runtime", hostWide: true, do: func(t *testing.T, _ *world) { connectReset(t, 5000) }},
	{alert: "SecurityTableFull", on: "runtime", hostWide: true, do: func(t *testing.T, _ *world) { manyFlows(t, 40_000) }},

	{alert: "SecurityEbpfPartial", on: "probes", atOnce: true, do: func(t *testing.T, w *world) {
		w.exporters["probes"].restart(t, "setpriv", "--bounding-set=-net_admin,-sys_admin")
	}},
	{alert: "SecurityEbpfDegraded", on: "probes", do: func(t *testing.T, w *world) {
		w.exporters["probes"].restart(t, "setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin")
	}},
}

// TestEveryAlertIsDone: an alert has one act, or a reason for none.
func TestEveryAlertIsDone(t *testing.T) {
	t.Parallel()
	done := map[string]int{alertOfTargets: 1}
	for _, a := range acts {
		done[a.alert]++
	}
	for name := range notDone {
		done[name]++
	}
	for _, r := range readRules(t, "alerts.yml") {
		if done[r.Alert] != 1 {
			t.Errorf("%s: %d acts and reasons in this file, want one", r.Alert, done[r.Alert])
		}
		delete(done, r.Alert)
	}
	for name := range done {
		t.Errorf("%s is no alert", name)
	}
}

// read opens the watched file.
func (w *world) read(t *testing.T, times int) {
	t.Helper()
	name := filepath.Join(w.dir, "read")
	for range times {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
	}
}

// shellOnSocket runs a shell whose standard input and output are a TCP
// connection.
func shellOnSocket(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.Stdin, cmd.Stdout = file, file
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

// programInTmp runs a copy of a program from the temporary folder.
func programInTmp(t *testing.T, w *world) {
	t.Helper()
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.dir, "true")
	if err := os.WriteFile(name, program, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(name).Run(); err != nil {
		t.Fatal(err)
	}
}

// gainPrivileges drops root and takes it back many times, on a thread
// that ends afterwards.
func gainPrivileges(t *testing.T, _ *world) {
	t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		const keep = ^uintptr(0)
		for range 20_000 {
			for _, id := range []uintptr{1000, 0} {
				if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, id, keep); errno != 0 {
					failed <- errno
					return
				}
			}
		}
		failed <- nil
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// exitBy32Bit is exit(0) by int 0x80.
var exitBy32Bit = []byte{0xb8, 1, 0, 0, 0, 0xbb, 0, 0, 0, 0, 0xcd, 0x80}

// gainUnseen runs a program that drops root and takes it back by a 32-bit
// call, which the tracepoints of system calls do not show.
func gainUnseen(t *testing.T, w *world) {
	t.Helper()
	code := []byte{
		0xb8, 117, 0, 0, 0, 0xbf, 0xff, 0xff, 0xff, 0xff, 0xbe, 0xe8, 3, 0, 0, 0xba, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x05, // setresuid(-1, 1000, -1)
		0xb8, 208, 0, 0, 0, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xb9, 0, 0, 0, 0, 0xba, 0xff, 0xff, 0xff, 0xff, 0xcd, 0x80, // setresuid32(-1, 0, -1)
	}
	if err := runCode(t, w.clean, append(code, exitBy32Bit...)); err != nil {
		t.Fatal(err)
	}
}

// runCode runs a 64-bit program of machine code, written to a folder.
func runCode(t *testing.T, folder string, code []byte) error {
	t.Helper()
	const base, headers = 0x400000, 64 + 56
	var program bytes.Buffer
	for _, v := range []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, uint16(2), uint16(62), uint32(1), uint64(base + headers), uint64(64), uint64(0), uint32(0),
		[6]uint16{64, 56, 1},
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(headers + len(code)), uint64(headers + len(code)), uint64(0x1000),
		code,
	} {
		if err := binary.Write(&program, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(folder, "unseen")
	if err := os.WriteFile(name, program.Bytes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return exec.Command(name).Run()
}

func connectRefused(t *testing.T, times int) {
	t.Helper()
	address := freeAddress(t)
	for range times {
		if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v %v", c, err)
		}
	}
}

// connectReset makes connections that the other side resets.
func connectReset(t *testing.T, times int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range times {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := other.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = other.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("read: %v", err)
		}
		_ = c.Close()
	}
}

// manyFlows sends a datagram to each of many addresses.
func manyFlows(t *testing.T, flows int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range flows {
		to := &net.UDPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i)), Port: 9}
		if _, err := c.WriteToUDP([]byte("x"), to); err != nil {
			t.Fatal(err)
		}
	}
}
