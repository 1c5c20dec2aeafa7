// SPDX-License-Identifier: Apache-2.0

package testkit

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Image32 is a 32-bit program that makes system calls, by number and with 0 as
// their argument, and ends.
func Image32(calls ...byte) []byte {
	const base, offset, exit = 0x400000, 52 + 32, 1
	var code []byte
	for _, call := range append(calls, exit) {
		code = append(code, 0xb8, call, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80)
	}
	size := uint32(offset + len(code))
	var out bytes.Buffer
	for _, part := range []any{
		elf.Header32{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: uint32(elf.EV_CURRENT),
			Entry: base + offset, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1,
		},
		elf.Prog32{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 0x1000,
		},
		code,
	} {
		_ = binary.Write(&out, binary.LittleEndian, part)
	}
	return out.Bytes()
}

// Require32Bit skips a test where the kernel runs no 32-bit programs
// (ia32_emulation=off). Nothing that is installed could change it.
func Require32Bit(tb testing.TB) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "program")
	if err := os.WriteFile(path, Image32(), 0o755); err != nil { //nolint:gosec // a program
		tb.Fatal(err)
	}
	switch err := exec.Command(path).Run(); {
	case errors.Is(err, unix.ENOEXEC):
		tb.Skip("the kernel runs no 32-bit programs")
	case err != nil:
		tb.Fatal(err)
	}
}
