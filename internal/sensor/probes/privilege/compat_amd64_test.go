// SPDX-License-Identifier: Apache-2.0

package privilege

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/testkit"
)

// machineCall is one system call of a program made of bytes.
type machineCall struct {
	number uint32
	args   [3]int32
	// short: through int $0x80 also in a 64-bit program
	short bool
}

// machineCode makes the calls n times and exits. The few instructions used
// are the same in both modes.
func machineCode(wide bool, n uint32, calls []machineCall) []byte {
	var code bytes.Buffer
	load := func(opcode byte, value uint32) {
		code.WriteByte(opcode)
		_ = binary.Write(&code, binary.LittleEndian, value)
	}
	enter := func(c machineCall) {
		load(0xb8, c.number) // mov eax
		if wide && !c.short {
			load(0xbf, uint32(c.args[0])) // mov edi
			load(0xbe, uint32(c.args[1])) // mov esi
			load(0xba, uint32(c.args[2])) // mov edx
			code.Write([]byte{0x0f, 0x05})
			return
		}
		load(0xbb, uint32(c.args[0])) // mov ebx
		load(0xb9, uint32(c.args[1])) // mov ecx
		load(0xba, uint32(c.args[2])) // mov edx
		code.Write([]byte{0xcd, 0x80})
	}
	load(0xbd, n) // mov ebp
	loop := code.Len()
	for _, c := range calls {
		enter(c)
	}
	code.Write([]byte{0xff, 0xcd, 0x0f, 0x85}) // dec ebp; jnz loop
	_ = binary.Write(&code, binary.LittleEndian, int32(loop-code.Len()-4))
	exit := machineCall{number: 1}
	if wide {
		exit.number = 60
	}
	enter(exit)
	return code.Bytes()
}

// elf wraps code into the smallest program the kernel runs.
func elf(wide bool, code []byte) []byte {
	const base = 0x400000
	var out bytes.Buffer
	put := func(values ...any) {
		for _, value := range values {
			_ = binary.Write(&out, binary.LittleEndian, value)
		}
	}
	class, machine, header, segment := byte(1), uint16(3), uint16(52), uint16(32)
	if wide {
		class, machine, header, segment = 2, 62, 64, 56
	}
	offset := uint32(header) + uint32(segment)
	size := offset + uint32(len(code))
	put([]byte{0x7f, 'E', 'L', 'F', class, 1, 1}, make([]byte, 9), uint16(2), machine, uint32(1))
	if wide {
		put(uint64(base+offset), uint64(header), uint64(0), uint32(0), header, segment, uint16(1), uint16(0), uint16(0), uint16(0))
		put(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(size), uint64(size), uint64(0x1000))
	} else {
		put(uint32(base)+offset, uint32(header), uint32(0), uint32(0), header, segment, uint16(1), uint16(0), uint16(0), uint16(0))
		put(uint32(1), uint32(0), uint32(base), uint32(base), size, size, uint32(5), uint32(0x1000))
	}
	out.Write(code)
	return out.Bytes()
}

func writeProgram(t *testing.T, name string, wide bool, n uint32, calls ...machineCall) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, elf(wide, machineCode(wide, n, calls)), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

type compatCase struct {
	name  string
	calls []machineCall
	each  counts
}

var compatCases = []compatCase{
	{"setuid32", []machineCall{{number: 213}}, counts{"setuid success": 1}},
	{"setuid16", []machineCall{{number: 23}}, counts{"setuid success": 1}},
	{"setreuid", []machineCall{{number: 203, args: [3]int32{-1, -1}}, {number: 70, args: [3]int32{-1, -1}}}, counts{"setuid success": 2}},
	{"setresuid", []machineCall{{number: 208, args: [3]int32{-1, -1, -1}}, {number: 164, args: [3]int32{-1, -1, -1}}}, counts{"setuid success": 2}},
	{"setfsuid", []machineCall{{number: 215}, {number: 138}}, counts{"setuid success": 2}},
	{"setfsuid query", []machineCall{{number: 215, args: [3]int32{-1}}, {number: 138, args: [3]int32{0xffff}}, {number: 138, args: [3]int32{-1}}}, nil},
	{"setgid", []machineCall{{number: 214}, {number: 46}}, counts{"setgid success": 2}},
	{"setregid", []machineCall{{number: 204, args: [3]int32{-1, -1}}, {number: 71, args: [3]int32{-1, -1}}}, counts{"setgid success": 2}},
	{"setresgid", []machineCall{{number: 210, args: [3]int32{-1, -1, -1}}, {number: 170, args: [3]int32{-1, -1, -1}}}, counts{"setgid success": 2}},
	{"setfsgid", []machineCall{{number: 216}, {number: 139}, {number: 216, args: [3]int32{-1}}}, counts{"setgid success": 2}},
	{"setgroups", []machineCall{{number: 206}, {number: 81}, {number: 206, args: [3]int32{70000}}}, counts{"setgid success": 2, "setgid failure": 1}},
	{"capset", []machineCall{{number: 185}}, counts{"capset failure": 1}},
	{"bad ids", []machineCall{{number: 213, args: [3]int32{-1}}, {number: 23, args: [3]int32{-1}}, {number: 214, args: [3]int32{-1}}},
		counts{"setuid failure": 2, "setgid failure": 1}},
	{"unshare of nothing", []machineCall{{number: 310}}, nil},
	{"root for a while", []machineCall{{number: 208, args: [3]int32{-1, 1000, -1}}, {number: 208, args: [3]int32{-1, 0, -1}}},
		counts{"setuid success": 2, "set_id": 1}},
}

func TestCompat(t *testing.T) {
	testkit.Require32Bit(t)
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	t.Run("auto", func(t *testing.T) { runCompat(t, host, cgroup, New(), compatCases) })
	t.Run(callRungs()[inCalls].Hook, func(t *testing.T) {
		var cases []compatCase
		for _, c := range compatCases {
			if c.name == "setgroups" || c.name == "capset" { // the others are seen as by the first rung
				cases = append(cases, c)
			}
		}
		runCompat(t, host, cgroup, withRung("calls", inCalls), cases)
	})
}

func runCompat(t *testing.T, host *probe.Host, cgroup *testkit.Cgroup, spec *probe.Spec, cases []compatCase) {
	p, _ := startBoth(t, host, spec, cgroup.Only())
	if s := p.Status(); s.State == probe.Unsupported || s.State == probe.Denied {
		t.Skipf("needs a kernel with such hooks: %+v", s)
	}
	if err := p.AttachCompat(); err != nil {
		t.Fatal(err)
	}
	if p.Runs("on_fexit_capset") == (p.Runs("on_compat_sys_exit") || p.Runs("on_classic_compat_sys_exit")) {
		t.Error("32-bit calls are seen twice, or not at all")
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			short := make([]machineCall, len(c.calls))
			for i, each := range c.calls {
				short[i] = each
				short[i].short = true
			}
			for _, path := range []string{
				writeProgram(t, "program32", false, rounds, c.calls...),
				// a 64-bit program may use the 32-bit entry
				writeProgram(t, "program64", true, rounds, short...),
			} {
				w := cgroup.Start(t, "privilege")
				watch := newWatch(t, p)
				w.Do("exec", "1", path)
				w.Stop()
				want := counts{}
				for name, times := range c.each {
					want.plus(name, times*rounds)
				}
				expect(t, watch, want)
			}
		})
	}
}

// Once for each program: a user namespace made by unshare(CLONE_NEWUSER).
func TestCompatUserNamespace(t *testing.T) {
	testkit.Require32Bit(t)
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	if err := p.AttachCompat(); err != nil {
		t.Fatal(err)
	}
	path := writeProgram(t, "program32", false, 1, machineCall{number: 310, args: [3]int32{0x10000000}})
	w := cgroup.Start(t, "privilege")
	watch := newWatch(t, p)
	w.Do("exec", strconv.Itoa(rounds), path)
	expect(t, watch, counts{"userns": rounds})
}

// Without the program for 32-bit calls they are not seen, and what they gain
// is other: here a 64-bit program drops root and takes it back behind the
// hooks, and then executes another program or ends.
func TestUnseenGain(t *testing.T) {
	testkit.Require32Bit(t)
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	if !p.Runs("on_exit_setuid") {
		t.Skip("the rung in use sees such calls")
	}
	drop := machineCall{number: 117, args: [3]int32{-1, 1000, -1}}
	unseen := machineCall{number: 208, args: [3]int32{-1, 0, -1}, short: true}
	path := writeProgram(t, "program64", true, 1, drop, unseen)
	w := cgroup.Start(t, "privilege")
	watch := newWatch(t, p)
	w.Do("exec", strconv.Itoa(rounds), path)
	expect(t, watch, counts{"setuid success": rounds, "other": rounds})
}

// A thread has what the one has that made it: two threads drop root, each
// makes a third and a fourth, and all four take it back.
func TestInheritedByThreads(t *testing.T) {
	host := testkit.Inspect(t)
	cgroup := testkit.NewCgroup(t, host)
	p, _ := startBoth(t, host, New(), cgroup.Only())
	thread := machineCall{number: 56, args: [3]int32{0x10f00}} // CLONE_THREAD, VM, FS, FILES, SIGHAND
	drop := machineCall{number: 117, args: [3]int32{-1, 1000, -1}}
	again := machineCall{number: 117, args: [3]int32{-1, 0, -1}}
	path := writeProgram(t, "program64", true, 1, thread, drop, thread, again)
	w := cgroup.Start(t, "privilege")
	watch := newWatch(t, p)
	w.Do("exec", strconv.Itoa(rounds), path)
	expect(t, watch, counts{"setuid success": rounds * 6, "set_id": rounds * 4})
	testkit.ExpectEmpty(t, p)
}
