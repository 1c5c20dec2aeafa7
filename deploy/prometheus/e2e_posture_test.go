// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fixtures are the hosts of the posture tests.
const fixtures = "../../internal/posture/testdata"

const syncookies = "/proc/sys/net/ipv4/tcp_syncookies"

// makeHost makes the host of the exporter posture: Debian 12, set up well.
func (w *world) makeHost(t *testing.T) {
	t.Helper()
	w.host, w.sys = filepath.Join(w.dir, "host"), filepath.Join(w.dir, "sys")
	for from, to := range map[string]string{"checks/debian12/rootfs/etc": "etc", "packages/debian/rootfs/var": "var"} {
		if err := os.CopyFS(filepath.Join(w.host, to), os.DirFS(filepath.Join(fixtures, from))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"etc/ssh/sshd_config": "PermitRootLogin no\nPasswordAuthentication no\nMaxAuthTries 4\nLoginGraceTime 60\nX11Forwarding no\n" +
			"AllowTcpForwarding no\nPermitEmptyPasswords no\nPermitUserEnvironment no\nClientAliveInterval 300\n",
		"etc/sysctl.d/50-net.conf":  "net.ipv4.tcp_syncookies = 1\n",
		"etc/selinux/config":        "SELINUX=enforcing\n",
		"etc/login.defs":            "PASS_MAX_DAYS\t90\nPASS_MIN_DAYS\t1\nPASS_WARN_AGE\t7\nUID_MIN\t1000\nENCRYPT_METHOD\tYESCRYPT\n",
		"etc/audit/audit.rules":     "",
		"etc/ufw/ufw.conf":          "ENABLED=no\n",
		"home/.keep":                "",
		"../sys/fs/selinux/enforce": "1",
		"var/log/dpkg.log":          dpkgLog(time.Now()),
	} {
		writeFile(t, filepath.Join(w.host, name), text)
	}
	// The password of alice, who has one, follows login.defs.
	w.replace(t, "etc/shadow", ":20400:0:99999:7:::", ":20400:1:90:7:30::")
	w.replace(t, "etc/shadow", ":20000:1:90:14:30:20500:", ":20400:1:90:14:30::")
	if err := os.Remove(filepath.Join(w.host, "var/log/dpkg.log.1")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(syncookies, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	nft(t, "add table inet t; add chain inet t in { type filter hook input priority 0; policy accept; }; add rule inet t in tcp dport 23 drop")
}

func nft(t *testing.T, commands string) {
	t.Helper()
	if out, err := exec.Command("nft", commands).CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v: %s", commands, err, out)
	}
}

func dpkgLog(last time.Time) string {
	return last.UTC().Format(time.DateTime) + " upgrade dash:amd64 0.5.12-1 0.5.12-2\n"
}

// edit writes a file of the host.
func edit(name, text string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) { writeFile(t, filepath.Join(w.host, name), text) }
}

// replace changes what stands in a file of the host.
func replace(name, from, to string) func(*testing.T, *world) {
	return func(t *testing.T, w *world) { w.replace(t, name, from, to) }
}

func (w *world) replace(t *testing.T, name, from, to string) {
	t.Helper()
	name = filepath.Join(w.host, name)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s does not contain %q", name, from)
	}
	writeFile(t, name, strings.ReplaceAll(string(text), from, to))
}

func openPort(t *testing.T, _ *world) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func manyAccounts(t *testing.T, w *world) {
	passwd, err := os.ReadFile(filepath.Join(w.host, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		passwd = fmt.Appendf(passwd, "user%d:x:%d:100::/home:/usr/sbin/nologin\n", i, 20000+i)
	}
	writeFile(t, filepath.Join(w.host, "etc/passwd"), string(passwd))
}

// weaken fails most checks that passed.
func weaken(t *testing.T, w *world) {
	writeFile(t, filepath.Join(w.host, "etc/ssh/sshd_config"), "PermitRootLogin yes\nPermitEmptyPasswords yes\nX11Forwarding yes\nPermitUserEnvironment yes\n")
	writeFile(t, filepath.Join(w.host, "etc/login.defs"), "PASS_MAX_DAYS\t99999\nPASS_MIN_DAYS\t0\nPASS_WARN_AGE\t0\n")
	writeFile(t, filepath.Join(w.host, "etc/sudoers"), "ALL ALL=(ALL) NOPASSWD: ALL\n")
}

// Kernel state is read when a file near it changes, or once a minute: so the
// file is written again.
func flushFirewall(t *testing.T, w *world) {
	nft(t, "flush ruleset")
	edit("etc/ufw/ufw.conf", "ENABLED=no\n")(t, w)
}

func notEnforcing(t *testing.T, w *world) {
	writeFile(t, filepath.Join(w.sys, "fs/selinux/enforce"), "0")
	edit("etc/selinux/config", "SELINUX=enforcing\n")(t, w)
}

func driftSysctl(t *testing.T, w *world) {
	if err := os.WriteFile(syncookies, []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	edit("etc/sysctl.d/50-net.conf", "net.ipv4.tcp_syncookies = 1\n")(t, w)
}

func agePatches(t *testing.T, w *world) {
	edit("var/log/dpkg.log", dpkgLog(time.Now().AddDate(0, 0, -61)))(t, w)
	w.replace(t, "var/lib/dpkg/status", "Package: dash", "Package: dash") // the database is watched, its log is not
}

// breakCollector puts a folder in the place of a file.
func breakCollector(t *testing.T, w *world) {
	name := filepath.Join(w.host, "etc/hosts.deny")
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
}

// auditStatus is struct audit_status of include/uapi/linux/audit.h.
type auditStatus struct {
	Mask, Enabled, Failure, Pid, RateLimit, BacklogLimit, Lost, Backlog, Features, WaitTime, WaitTimeActual uint32
}

const (
	auditGet, auditSet, auditUser = 1000, 1001, 1005
	// The bits of Mask.
	auditEnabled, auditRateLimit, auditLost = 1, 8, 0x40
)

// audit sends a message to the kernel's audit system and returns the status
// that it answers with.
func audit(t *testing.T, kind uint16, data []byte) auditStatus {
	t.Helper()
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	message := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(data)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	message = append(append(message, make([]byte, 8)...), data...)
	if err := unix.Sendto(s, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8192)
	for {
		n, _, err := unix.Recvfrom(s, buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		body := buf[unix.SizeofNlMsghdr:n]
		switch binary.NativeEndian.Uint16(buf[4:]) {
		case unix.NLMSG_ERROR:
			if errno := int32(binary.NativeEndian.Uint32(body)); errno < 0 {
				t.Fatalf("audit message %d: %v", kind, unix.Errno(-errno))
			}
			if kind != auditGet {
				return auditStatus{}
			}
		case auditGet:
			var status auditStatus
			if _, err := binary.Decode(append(body, make([]byte, binary.Size(status))...), binary.NativeEndian, &status); err != nil {
				t.Fatal(err)
			}
			return status
		}
	}
}

func setAudit(t *testing.T, status auditStatus) {
	t.Helper()
	data, err := binary.Append(nil, binary.NativeEndian, status)
	if err != nil {
		t.Fatal(err)
	}
	audit(t, auditSet, data)
}

// auditInUse: nobody's records are touched.
func auditInUse(t *testing.T) string {
	if s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT); err != nil {
		return "the kernel has no auditing"
	} else {
		_ = unix.Close(s)
	}
	if s := audit(t, auditGet, nil); s.Enabled != 0 || s.Pid != 0 {
		return "the host audits"
	}
	return ""
}

// loseAudit switches auditing on for a moment, with a limit of one record each
// second, and sends more.
func loseAudit(t *testing.T, w *world) {
	was := audit(t, auditGet, nil)
	setAudit(t, auditStatus{Mask: auditEnabled | auditRateLimit, Enabled: 1, RateLimit: 1})
	for range 100 {
		audit(t, auditUser, []byte("text of security-exporter's end-to-end test\x00"))
	}
	setAudit(t, auditStatus{Mask: auditEnabled | auditRateLimit, RateLimit: was.RateLimit})
	t.Cleanup(func() { setAudit(t, auditStatus{Mask: auditLost}) })
	if now := audit(t, auditGet, nil); now.Lost == was.Lost {
		t.Fatal("the kernel lost no audit record")
	}
	edit("etc/audit/audit.rules", "-w /etc/passwd -p wa\n")(t, w)
}
