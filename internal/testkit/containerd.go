// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Containerd is a daemon of one test's own, with all its folders below a
// temporary one.
type Containerd struct {
	// Rootfs is the root of a host that has its state where containerd's is.
	Rootfs string
	// Bundle is a root file system of busybox, for containers.
	Bundle string
	socket string
}

// StartContainerd starts containerd. It ends with the test.
func StartContainerd(t *testing.T) *Containerd {
	t.Helper()
	for _, program := range []string{"containerd", "ctr", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, "needs %s (Debian: containerd, runc, busybox-static)", program)
		}
	}
	// Short: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "containerd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &Containerd{Rootfs: dir + "/rootfs", socket: dir + "/sock", Bundle: dir + "/bundle"}
	config := dir + "/config.toml"
	write(t, config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.Bundle+"/bin/busybox", string(program))
	for _, applet := range []string{"sh", "sleep", "true"} {
		if err := os.Symlink("busybox", c.Bundle+"/bin/"+applet); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command("containerd", "--config", config, "--root", dir+"/root",
		"--state", c.Rootfs+"/run/containerd", "--address", c.socket)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(unix.SIGTERM)
		_ = command.Wait()
		if t.Failed() {
			t.Logf("containerd:\n%s", said.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); c.Try("version") != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("containerd does not answer")
		}
	}
	return c
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Try runs ctr.
func (c *Containerd) Try(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ctr", append([]string{"-a", c.socket}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", args, err, out)
	}
	return nil
}

// Remove removes a container, and its task if it still has one.
func (c *Containerd) Remove(namespace, name string) {
	_ = c.Try("-n", namespace, "task", "rm", "-f", name)
	_ = c.Try("-n", namespace, "container", "rm", name)
}
