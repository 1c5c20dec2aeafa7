// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// visit makes an event of each frequent kind: it runs a program that ends at
// once, reads a file, connects to a port by TCP, sends to it by UDP, and sets
// its group.
func visit(args ...string) (string, error) {
	file, port := args[0], args[1]
	if err := exec.Command("/bin/true").Run(); err != nil {
		return "", err
	}
	if _, err := os.ReadFile(file); err != nil {
		return "", err
	}
	for _, network := range []string{"tcp4", "udp4"} {
		c, err := net.Dial(network, "127.0.0.1:"+port)
		if err != nil {
			return "", err
		}
		_, err = c.Write([]byte("x"))
		if err = errors.Join(err, c.Close()); err != nil {
			return "", err
		}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGID, uintptr(os.Getgid()), 0, 0); e != 0 {
		return "", e
	}
	return "", nil
}

// heldUp takes events behind a gate, so that the readers get at them when all
// that they are about has ended.
type heldUp struct {
	gate chan struct{}
	all  chan seen
}

type seen struct {
	what         string
	tgid, parent uint32
	container    string
}

func (h *heldUp) take(e *event.Event, who *identity.Identity) {
	<-h.gate
	what := e.Kind.String()
	if e.Kind == event.Connect {
		what += " " + abi.Transports[e.Transport]
	}
	h.all <- seen{what, e.TGID, e.Parent, who.ContainerID}
}

// A container that is one in version 1 alone is told by the kernel: also of
// processes that have ended when the event is read, also when the cgroup has
// gone by then.
func TestLegacyContainer(t *testing.T) {
	host := testkit.Inspect(t)
	id := strings.Repeat("0", 60) + "f00d"
	file := filepath.Join(t.TempDir(), "watched")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(accept(t))
	for _, policy := range []probe.Policy{probe.PolicyAuto, probe.PolicyTracepoint, probe.PolicyRaw, probe.PolicyClassic} {
		t.Run(string(policy), func(t *testing.T) {
			place := testkit.NewLegacyCgroup(t, host, "security-exporter-test/docker/"+id)
			outside := testkit.NewCgroup(t, host).Start(t, "host")
			inside := testkit.NewCgroup(t, host).Start(t, "host")
			place.Join(t, inside.PID())

			options := defaults(quiet(t))
			options.HookPolicy, options.Detailed = policy, true
			options.Rules = []config.FileRule{{Path: file, Read: config.SeverityWarning, Write: config.SeverityWarning}}
			held := &heldUp{gate: make(chan struct{}), all: make(chan seen, 10_000)}
			options.OnEvent = held.take
			run(t, options)
			outside.Do("visit", file, port) // the readers are at the gate
			time.Sleep(100 * time.Millisecond)
			inside.Do("visit", file, port)
			pids := map[uint32]bool{uint32(inside.PID()): true, uint32(outside.PID()): false}
			inside.Stop()
			outside.Stop()
			if err := os.Remove(place.Path); err != nil {
				t.Fatal(err)
			}
			close(held.gate)

			want := map[string]bool{"exec": true, "exit": true, "file": true, "privilege": true, "connect tcp": true, "connect udp": true}
			end := time.After(10 * time.Second)
			for len(want) > 0 {
				select {
				case s := <-held.all:
					contained, known := pids[s.tgid]
					if !known {
						contained, known = pids[s.parent]
					}
					switch {
					case !known:
					case !contained && s.container != "":
						t.Errorf("%s of the host's is in the container %q", s.what, s.container)
					case contained && s.container != id:
						t.Errorf("%s of the container's is in the container %q", s.what, s.container)
					case contained:
						delete(want, s.what)
					}
				case <-end:
					t.Fatalf("never seen in the container: %v", want)
				}
			}
		})
	}
}
