// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/sensor/topn"
	"security-exporter/internal/testkit"
)

// kept are the executables of the connections to one port.
type kept struct {
	port uint16
	mu   sync.Mutex
	all  []string
}

func (k *kept) take(e *event.Event, _ *identity.Identity) {
	if e.Kind != event.Connect || e.Direction != uint8(abi.DirectionOut) || e.Peer.Port() != k.port {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, string(e.Executable))
}

func (k *kept) wait(t *testing.T, n int) []string {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		k.mu.Lock()
		all := k.all
		k.mu.Unlock()
		if len(all) >= n {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.all = nil
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections seen, want %d", len(all), n)
		}
	}
}

// accept takes connections and lets go of them.
func accept(t *testing.T) (port uint16) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// shell is a bash older than the manager that runs a script when told to.
func shell(t *testing.T, script string) (tell func()) {
	t.Helper()
	cmd := exec.Command("/bin/bash", "-c", "echo; read; "+script+"; read")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExecutables: TCP connections are made in an interrupt, and have the
// executable of who called connect() all the same.
func TestExecutables(t *testing.T) {
	testkit.RequireBPF(t)
	bash, err := filepath.EvalSymlinks("/bin/bash")
	if err != nil {
		testkit.Missing(t, "needs bash")
	}
	text, err := os.ReadFile(bash)
	if err != nil {
		t.Fatal(err)
	}
	tool := filepath.Join(t.TempDir(), "tool") // suspicious: below /tmp
	if err := os.WriteFile(tool, text, 0o755); err != nil {
		t.Fatal(err)
	}
	port := accept(t)
	dial := fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", port)
	old := shell(t, dial)
	forking := shell(t, "for i in 1 2 3 4 5; do ("+dial+"); done")
	kept := &kept{port: port}
	options := defaults(quiet(t), "process", "network")
	options.OnEvent, options.TopN = kept.take, 10
	m := run(t, options)
	const n = 20
	for _, c := range []struct {
		name, want string
		times      int
		do         func() error
	}{
		{"exits at once", bash, n, func() error {
			for range n {
				if err := exec.Command("/bin/bash", "-c", dial).Run(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"suspicious", tool, n, func() error {
			for range n {
				if err := exec.Command(tool, "-c", dial).Run(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"fork without exec", bash, 1, func() error { return exec.Command("/bin/bash", "-c", "("+dial+"); true").Run() }},
		{"older than the exporter", bash, 1, func() error { old(); return nil }},
		{"children of an older one", bash, 5, func() error { forking(); return nil }},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		for _, got := range kept.wait(t, c.times) {
			if got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
	for _, e := range m.Top(topn.ConnectProcess, 20, time.Minute).Entries {
		if strings.HasPrefix(e.Key, "[bash") || strings.HasPrefix(e.Key, "[tool") {
			t.Errorf("%s made %d connections", e.Key, e.Count)
		}
	}
}
