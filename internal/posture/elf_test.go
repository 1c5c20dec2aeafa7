// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// elfNeeding is the smallest program with one DT_NEEDED entry (elf(5)): header,
// two sections' content, three section headers.
func elfNeeding(library string) []byte {
	const header, section = 64, 64
	strings := append([]byte("\x00"+library), 0)
	dynamic := make([]byte, 32)
	binary.LittleEndian.PutUint64(dynamic, uint64(elf.DT_NEEDED))
	binary.LittleEndian.PutUint64(dynamic[8:], 1)
	at := uint64(header)
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: at + uint64(len(strings)+len(dynamic)), Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 1,
	}
	sections := []elf.Section64{
		{},
		{Type: uint32(elf.SHT_STRTAB), Off: at, Size: uint64(len(strings))},
		{Type: uint32(elf.SHT_DYNAMIC), Off: at + uint64(len(strings)), Size: uint64(len(dynamic)), Link: 1, Entsize: 16},
	}
	var b bytes.Buffer
	for _, part := range []any{h, strings, dynamic, sections} {
		// A bytes.Buffer takes everything.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}
