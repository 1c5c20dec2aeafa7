// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// The programs of the machine that tests copy and run by another name, which
// busybox does not bear, in machine code.
var (
	// exitZero is true(1): exit_group(0).
	exitZero = map[string][]byte{
		"amd64": {
			0x31, 0xff, // xor edi, edi
			0xb8, 0xe7, 0, 0, 0, // mov eax, 231
			0x0f, 0x05, // syscall
		},
		"arm64": words(
			0xd2800000, // mov x0, 0
			0xd2800bc8, // mov x8, 94
			0xd4000001, // svc 0
		),
	}
	// runArguments is env(1) without variables: execve(argv[1], argv+1, envp),
	// or exit_group(127).
	runArguments = map[string][]byte{
		"amd64": {
			0x48, 0x8b, 0x7c, 0x24, 0x10, // mov rdi, [rsp+16]
			0x48, 0x8d, 0x74, 0x24, 0x10, // lea rsi, [rsp+16]
			0x48, 0x8b, 0x04, 0x24, // mov rax, [rsp]
			0x48, 0x8d, 0x54, 0xc4, 0x10, // lea rdx, [rsp+rax*8+16]
			0xb8, 0x3b, 0, 0, 0, // mov eax, 59
			0x0f, 0x05, // syscall
			0xbf, 0x7f, 0, 0, 0, // mov edi, 127
			0xb8, 0xe7, 0, 0, 0, // mov eax, 231
			0x0f, 0x05, // syscall
		},
		"arm64": words(
			0xf94003e3, // ldr x3, [sp]
			0xf9400be0, // ldr x0, [sp, 16]
			0x910043e1, // add x1, sp, 16
			0x8b030c22, // add x2, x1, x3, lsl 3
			0xd2801ba8, // mov x8, 221
			0xd4000001, // svc 0
			0xd2800fe0, // mov x0, 127
			0xd2800bc8, // mov x8, 94
			0xd4000001, // svc 0
		),
	}
)

func words(code ...uint32) []byte {
	var out []byte
	for _, word := range code {
		out = binary.LittleEndian.AppendUint32(out, word)
	}
	return out
}

// program makes an executable of machine code: an ELF header and one segment.
func program(arch string, code []byte) []byte {
	const base, headers = 0x400000, 64 + 56
	machine := uint16(62) // EM_X86_64
	if arch == "arm64" {
		machine = 183 // EM_AARCH64
	}
	le := binary.LittleEndian
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	for _, v := range []uint16{2, machine} { // ET_EXEC
		out = le.AppendUint16(out, v)
	}
	out = le.AppendUint32(out, 1)
	for _, v := range []uint64{base + headers, 64, 0} { // entry, program headers, sections
		out = le.AppendUint64(out, v)
	}
	out = le.AppendUint32(out, 0)
	for _, v := range []uint16{64, 56, 1, 64, 0, 0} {
		out = le.AppendUint16(out, v)
	}
	size := uint64(headers + len(code))
	out = le.AppendUint32(le.AppendUint32(out, 1), 5) // PT_LOAD, read and execute
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		out = le.AppendUint64(out, v)
	}
	return append(out, code...)
}
