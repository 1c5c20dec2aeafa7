// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What an ordinary user may not read, write or take is one line that names it,
// exit code 2, and nothing started or left behind.
func TestRefusedPermissions(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // the child must be able to pass
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	certificate(t, file("cert.pem"), file("key.pem"))
	if err := os.Chmod(file("cert.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"web.yml": 0o644, "secret.yml": 0o600, "config.yml": 0o600} {
		if err := os.WriteFile(file(name), []byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	const web = " (see the exporter-toolkit's web configuration)"
	for _, c := range []struct{ arg, want string }{
		{"--web.config.file=" + file("web.yml"), "--web.config.file=" + file("web.yml") + ": failed to read key_file (" + file("key.pem") + "): open " + file("key.pem") + ": permission denied" + web},
		{"--web.config.file=" + file("secret.yml"), "--web.config.file=" + file("secret.yml") + ": open " + file("secret.yml") + ": permission denied" + web},
		{"--config.file=" + file("config.yml"), "--config.file: open " + file("config.yml") + ": permission denied"},
		{"--api.listen-address=" + file("api.sock"), "--api.listen-address: listen unix " + file("api.sock") + ": bind: permission denied"},
		{"--api.listen-address=" + file("new/api.sock"), "--api.listen-address: mkdir " + file("new") + ": permission denied"},
		{"--api.listen-address=" + file("web.yml/api.sock"), "--api.listen-address: open " + file("web.yml") + ": not a directory"},
		{"--events.output=file:" + file("events"), "--events.output: open " + file("events") + ": permission denied"},
	} {
		cmd := exec.Command(binary, "--ebpf.enabled", "--web.listen-address=127.0.0.1:0", c.arg)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		p := launchCmd(t, cmd)
		if code := p.wait(t, stopLimit); code != 2 || p.stderr() != "security-exporter: "+c.want+"\n" {
			t.Errorf("%s: exit code %d, stderr %q, want %q", c.arg, code, p.stderr(), c.want)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 5 {
		t.Errorf("in the folder are %v, %v", left, err)
	}
}

// With a port in use, neither the API's socket nor another port stays open.
func TestRefusedPortLeavesNothing(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	socket := filepath.Join(t.TempDir(), "api.sock")
	p := launch(t, "--ebpf.enabled", "--web.listen-address="+taken.Addr().String(), "--web.listen-address=127.0.0.1:0", "--api.listen-address="+socket)
	code := p.wait(t, stopLimit)
	lines := strings.Split(strings.TrimSpace(p.stderr()), "\n")
	if want := "security-exporter: cannot serve: listen tcp " + taken.Addr().String() + ": bind: address already in use"; code != 2 || lines[len(lines)-1] != want {
		t.Errorf("exit code %d, %q, want the last line %q", code, lines, want)
	}
	if strings.Contains(p.stderr(), "msg=Probe") {
		t.Errorf("probes were loaded\n%s", p.stderr())
	}
	if _, err := os.Lstat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}
