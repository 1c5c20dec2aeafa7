// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// code is a program in the making. Nothing in it uses the stack, so threads
// and children of vfork may share it.
type code struct{ bytes.Buffer }

func (c *code) op(instruction ...byte) { c.Write(instruction) }

// set loads a register: 0xb8 is eax, 0xbf edi, 0xbe esi, 0xba edx, 0xbd ebp.
func (c *code) set(register byte, value uint32) {
	c.WriteByte(register)
	_ = binary.Write(c, binary.LittleEndian, value)
}

func (c *code) call(number, first, second, third uint32) {
	c.set(0xb8, number)
	c.set(0xbf, first)
	c.set(0xbe, second)
	c.set(0xba, third)
	c.op(0x45, 0x31, 0xd2) // xor r10d, r10d
	c.op(0x45, 0x31, 0xc0) // xor r8d, r8d
	c.op(0x0f, 0x05)
}

// when jumps over a body unless the last result was zero (jnz).
func (c *code) whenZero(body func(c *code)) {
	var inner code
	body(&inner)
	c.op(0x85, 0xc0, 0x75, byte(inner.Len())) // test eax, eax; jnz
	c.Write(inner.Bytes())
}

func (c *code) exit() { c.call(unix.SYS_EXIT, 0, 0, 0) }

// repeat runs a body n times.
func (c *code) repeat(n uint32, body func(c *code)) {
	c.set(0xbd, n)
	start := c.Len()
	body(c)
	c.op(0xff, 0xcd, 0x0f, 0x85) // dec ebp; jnz
	_ = binary.Write(c, binary.LittleEndian, int32(start-c.Len()-4))
}

// withPath puts a path, an argument list and an empty environment in front of
// the code, and gives their addresses.
func withPath(path string, build func(c *code, path, argv, envp uint32)) []byte {
	var c code
	data := make([]byte, 16)                             // argv and its end, which is envp
	binary.LittleEndian.PutUint64(data, imageStart+5+16) // the path
	data = append(data, path...)
	data = append(data, 0)
	c.op(0xe9) // jmp over the data
	_ = binary.Write(&c, binary.LittleEndian, uint32(len(data)))
	c.Write(data)
	build(&c, imageStart+5+16, imageStart+5, imageStart+5+8)
	return c.Bytes()
}

// spawner makes children in a tight loop with vfork. Each executes a path, or
// just ends if there is none.
func spawner(n uint32, path string) []byte {
	return withPath(path, func(c *code, path32, argv, envp uint32) {
		c.repeat(n, func(c *code) {
			c.call(unix.SYS_VFORK, 0, 0, 0)
			c.whenZero(func(c *code) {
				if path != "" {
					c.call(unix.SYS_EXECVE, path32, argv, envp)
				}
				c.exit()
			})
			c.call(unix.SYS_WAIT4, 0xffffffff, 0, 0)
		})
		c.exit()
	})
}

const newThread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM

// 8 threads end at the same time, each by itself: any of them is the last.
func scattering() []byte {
	var c code
	c.repeat(7, func(c *code) {
		c.call(unix.SYS_CLONE, newThread, 0, 0)
		c.whenZero((*code).exit)
	})
	c.exit()
	return c.Bytes()
}

// headless ends its leader; another thread waits for the end of the input.
func headless() []byte {
	var c code
	c.call(unix.SYS_CLONE, newThread, 0, 0)
	c.whenZero(func(c *code) {
		c.call(unix.SYS_READ, 0, 0, 1)
		c.exit()
	})
	c.exit()
	return c.Bytes()
}

// threadExec executes a path from a thread while the leader sleeps.
func threadExec(path string) []byte {
	return withPath(path, func(c *code, path, argv, envp uint32) {
		c.call(unix.SYS_CLONE, newThread, 0, 0)
		c.whenZero(func(c *code) {
			c.call(unix.SYS_EXECVE, path, argv, envp)
			c.exit()
		})
		c.call(unix.SYS_PAUSE, 0, 0, 0)
	})
}

func TestImages(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	for rung, r := range rungs() {
		if r.Requires != nil && r.Requires(host) != nil {
			continue
		}
		t.Run(strconv.Itoa(rung)+" "+r.Hook, func(t *testing.T) {
			p := startRung(t, host, cgroup, rung)
			w := startIn(t, cgroup, userPlace)
			t.Run("32-bit", func(t *testing.T) {
				testkit.Require32Bit(t)
				target{make: func(t *testing.T) []string {
					return []string{"exec", put(t, folder(t, systemPlace), "program", testkit.Image32())}
				}}.run(t, p, w, "system")
			})
			t.Run("32-bit in /tmp", func(t *testing.T) {
				testkit.Require32Bit(t)
				target{make: func(t *testing.T) []string {
					return []string{"exec", put(t, folder(t, tempPlace), "program", testkit.Image32())}
				}}.run(t, p, w, "suspicious")
			})
			t.Run("all threads end at once", func(t *testing.T) {
				target{make: func(t *testing.T) []string {
					return []string{"exec", put(t, folder(t, systemPlace), "program", image64(imageBase, scattering()))}
				}}.run(t, p, w, "system")
			})
			t.Run("exec from a thread", func(t *testing.T) { execFromThread(t, p, w) })
			t.Run("leader gone", func(t *testing.T) { leaderGone(t, p, w) })
		})
	}
}

func execFromThread(t *testing.T, p *probe.Probe, w *testkit.Process) {
	last := put(t, folder(t, tempPlace), "program", exiting())
	first := put(t, folder(t, systemPlace), "program", image64(imageBase, threadExec(last)))
	watch := newWatch(t, p)
	w.Do("exec", strconv.Itoa(rounds), first)
	watch.expect(t, perClass{"system": rounds, "suspicious": rounds}, perClass{"suspicious": rounds}, nil)
}

func leaderGone(t *testing.T, p *probe.Probe, w *testkit.Process) {
	watch := newWatch(t, p)
	holdHeadless(t, w)
	watch.expect(t, perClass{"system": rounds}, nil, perClass{"system": rounds})
	w.Do("let-go")
	watch.expect(t, perClass{"system": rounds}, perClass{"system": rounds}, nil)
}

// holdHeadless holds processes whose leader has ended.
func holdHeadless(t *testing.T, w *testkit.Process) {
	t.Helper()
	pids := w.Do("hold", strconv.Itoa(rounds), "stdin=pipe", put(t, folder(t, systemPlace), "program", image64(imageBase, headless())))
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range bytes.Fields([]byte(pids)) {
		for {
			if _, fields := stat(filepath.Join("/proc", string(pid), "stat")); len(fields) > 0 && fields[0] == "Z" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the leader of %s has not ended", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// A group without its leader is active, also if it is older than the probe.
func TestOlderWithoutLeader(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	w := startIn(t, cgroup, userPlace)
	holdHeadless(t, w)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	live := perClass{"system": rounds, "user": 1}.byIndex(t)
	for class, n := range testkit.Sum(t, p, active) {
		if n != live[class] {
			t.Errorf("active[%d] is %d at the start, want %d", class, n, live[class])
		}
	}
	watch := newWatch(t, p)
	w.Do("let-go")
	watch.expect(t, nil, perClass{"system": rounds}, perClass{"system": -rounds})
}

// 200,000 processes, several times the number of ids, leave nothing behind.
func TestShortLived(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p := testkit.StartProbe(t, host, New(), cgroup.Only())
	execute, fork := int64(40*rounds), int64(360*rounds)
	if testing.Short() {
		execute, fork = 4*rounds, 36*rounds
	}
	path := put(t, folder(t, tempPlace), "program", exiting())
	dir := folder(t, systemPlace)
	executing := put(t, dir, "executing", image64(imageBase, spawner(uint32(execute), path)))
	forking := put(t, dir, "forking", image64(imageBase, spawner(uint32(fork), "")))
	first, second := startIn(t, cgroup, userPlace), startIn(t, cgroup, userPlace)
	watch := newWatch(t, p)
	var both sync.WaitGroup
	both.Go(func() { runOnce(t, first, executing) })
	both.Go(func() { runOnce(t, second, forking) })
	both.Wait()
	watch.expect(t, perClass{"system": 2, "suspicious": execute}, perClass{"system": 2 + fork, "suspicious": execute}, nil)
	if got := entries(t, p); len(got) != 2 {
		t.Errorf("%d processes in the table, want the two workers", len(got))
	}
}

func runOnce(t *testing.T, w *testkit.Process, path string) {
	if _, err := w.Try("exec", "1", path); err != nil {
		t.Error(err)
	}
}
