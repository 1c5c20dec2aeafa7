// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// The programs that the workers execute are a few instructions each: they
// start in no time and need no library, wherever they are put.
const (
	imageBase  = 0x400000
	imageStart = imageBase + 64 + 56 // behind the headers
)

// exitCode ends at once; blockCode first reads from standard input, which a
// pipe or a socket ends by being closed.
func exitCode() []byte {
	if runtime.GOARCH == "arm64" {
		return words(0xd2800ba8, 0xd2800000, 0xd4000001) // mov x8, 93; mov x0, 0; svc 0
	}
	return []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, 60; xor edi, edi; syscall
}

func blockCode() []byte {
	if runtime.GOARCH == "arm64" {
		// mov x8, 63; mov x0, 0; mov x1, 0; mov x2, 1; svc 0
		return append(words(0xd28007e8, 0xd2800000, 0xd2800001, 0xd2800022, 0xd4000001), exitCode()...)
	}
	// xor eax, eax; xor edi, edi; xor esi, esi; mov edx, 1; syscall
	return append([]byte{0x31, 0xc0, 0x31, 0xff, 0x31, 0xf6, 0xba, 1, 0, 0, 0, 0x0f, 0x05}, exitCode()...)
}

func words(instructions ...uint32) []byte {
	var out []byte
	for _, instruction := range instructions {
		out = binary.LittleEndian.AppendUint32(out, instruction)
	}
	return out
}

// image64 is the smallest program of this machine that the kernel runs.
func image64(base uint64, code []byte) []byte {
	machine := elf.EM_X86_64
	if runtime.GOARCH == "arm64" {
		machine = elf.EM_AARCH64
	}
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: imageStart, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	size := uint64(64 + 56 + len(code))
	segment := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
	}
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, header)
	_ = binary.Write(&out, binary.LittleEndian, segment)
	out.Write(code)
	return out.Bytes()
}

// exiting and blocking are images of the two programs.
func exiting() []byte  { return image64(imageBase, exitCode()) }
func blocking() []byte { return image64(imageBase, blockCode()) }

// folder makes a folder below parent that only root may write in. It is
// removed with the test.
func folder(t testing.TB, parent string) string {
	t.Helper()
	path, err := os.MkdirTemp(parent, "process-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// below makes folders below path with a mode, which the umask does not change.
func below(t testing.TB, path, relative string, mode os.FileMode) string {
	t.Helper()
	path = filepath.Join(path, relative)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// put writes an executable file.
func put(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func script(t testing.TB, dir, name, interpreter string) string {
	t.Helper()
	return put(t, dir, name, []byte("#!"+interpreter+"\n"))
}

// Where each class comes from.
const (
	systemPlace = "/usr/local/bin"
	userPlace   = "/opt"
	tempPlace   = "/tmp"
)
