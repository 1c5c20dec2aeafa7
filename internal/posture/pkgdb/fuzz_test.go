// SPDX-License-Identifier: Apache-2.0

package pkgdb

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

func FuzzParseDpkgStatus(f *testing.F) {
	f.Add([]byte("Package: a\nStatus: install ok installed\nVersion: 1\n continued\n\nPackage: b\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, statusless bool) {
		packages, err := parseDpkgStatus(b, statusless)
		if err == nil && len(packages) > bytes.Count(b, []byte("\n"))+1 {
			t.Errorf("%d packages", len(packages))
		}
		for _, p := range packages {
			if p.name == "" {
				t.Error("a package without a name")
			}
		}
	})
}

func FuzzParseDiversions(f *testing.F) {
	f.Add([]byte("/bin/sh\n/bin/sh.distrib\ndash\n"), "bash")
	f.Fuzz(func(_ *testing.T, b []byte, pkg string) {
		d := parseDiversions(b)
		for from := range d {
			d.place([]byte(from), pkg)
		}
	})
}

func FuzzParseDpkgLog(f *testing.F) {
	f.Add([]byte("2024-05-01 10:11:12 upgrade a:amd64 1 2\n2024-05-01 10:11:13 status installed a\nx"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseDpkgLog(bytes.NewReader(b), time.UTC); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseAPK(f *testing.F) {
	f.Add([]byte("P:musl\nV:1.2-r3\nF:lib\nR:libc.so\n\n"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = parseAPK(b, func(string, Owner) bool { return true }, func() {})
	})
}

func FuzzParsePacman(f *testing.F) {
	f.Add([]byte("%NAME%\nbash\n\n%FILES%\nusr/bin/bash\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { parsePacman(b) })
}

func FuzzParseRPMHeader(f *testing.F) {
	f.Add(header("alpha", 1700000000, "/usr/bin/", "alpha"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseRPMHeader(b)
		if err != nil {
			return
		}
		_ = h.version()
		h.number(tagInstallTime)
		n := 0
		_ = h.files(func(string) { n++ })
		if n > len(b) {
			t.Errorf("%d files in %d bytes", n, len(b))
		}
	})
}

// Each format gets the smallest database that holds a package, so that the
// fuzzer starts inside.
func FuzzEachNDB(f *testing.F) {
	f.Add(smallNDB())
	fuzzEach(f, func(b []byte, count func([]byte) error) error {
		return eachNDB(newCounting(bytes.NewReader(b), int64(len(b))), nil, count)
	})
}

func FuzzEachBDB(f *testing.F) {
	f.Add(smallBDB())
	fuzzEach(f, func(b []byte, count func([]byte) error) error {
		return eachBDB(newCounting(bytes.NewReader(b), int64(len(b))), nil, count)
	})
}

func FuzzEachSQLite(f *testing.F) {
	f.Add(smallSQLite())
	fuzzEach(f, func(b []byte, count func([]byte) error) error {
		return eachSQLite(newCounting(bytes.NewReader(b), int64(len(b))), nil, count)
	})
}

func FuzzReadWAL(f *testing.F) {
	f.Add(smallWAL())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := readWAL(newCounting(bytes.NewReader(b), int64(len(b))), 512)
		if err != nil {
			return
		}
		for page, at := range w.frame {
			if at+512 > int64(len(b)) {
				t.Errorf("page %d at %d of %d bytes", page, at, len(b))
			}
		}
	})
}

func fuzzEach(f *testing.F, each func([]byte, func([]byte) error) error) {
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_ = each(b, func(h []byte) error {
			total += len(h)
			_, err := parseRPMHeader(h)
			return err
		})
		if total > 4*len(b)+1<<17 {
			t.Errorf("%d bytes of packages from a file of %d", total, len(b))
		}
	})
}

// The databases above hold what they are meant to hold.
func TestSmallDatabases(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each func(db, log *countingReaderAt, header func([]byte) error) error
		b    []byte
	}{"ndb": {eachNDB, smallNDB()}, "bdb": {eachBDB, smallBDB()}, "sqlite": {eachSQLite, smallSQLite()}} {
		var names []string
		err := c.each(newCounting(bytes.NewReader(c.b), int64(len(c.b))), nil, func(b []byte) error {
			h, err := parseRPMHeader(b)
			if err == nil {
				names = append(names, h.text(tagName))
			}
			return err
		})
		if err != nil || len(names) != 1 || names[0] != "alpha" {
			t.Errorf("%s: %q, %v", name, names, err)
		}
	}
	wal := smallWAL()
	w, err := readWAL(newCounting(bytes.NewReader(wal), int64(len(wal))), 512)
	if err != nil || len(w.frame) != 1 || w.frame[3] != walHeader+walFrame {
		t.Errorf("%v, %v", w, err)
	}
}

// header builds a header as rpm stores it.
func header(name string, installed uint32, dir, base string) []byte {
	var index, data []byte
	put := func(tag, kind, count uint32, value []byte) {
		for kind == typeInt32 && len(data)%4 != 0 {
			data = append(data, 0)
		}
		for _, v := range []uint32{tag, kind, uint32(len(data)), count} {
			index = binary.BigEndian.AppendUint32(index, v)
		}
		data = append(data, value...)
	}
	put(tagName, typeString, 1, []byte(name+"\x00"))
	put(tagVersion, typeString, 1, []byte("1\x00"))
	put(tagRelease, typeString, 1, []byte("2\x00"))
	put(tagInstallTime, typeInt32, 1, binary.BigEndian.AppendUint32(nil, installed))
	put(tagDirIndexes, typeInt32, 1, make([]byte, 4))
	put(tagBaseNames, typeStringArray, 1, []byte(base+"\x00"))
	put(tagDirNames, typeStringArray, 1, []byte(dir+"\x00"))
	out := binary.BigEndian.AppendUint32(nil, uint32(len(index)/rpmEntrySize))
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	return append(append(out, index...), data...)
}

func smallNDB() []byte {
	h := header("alpha", 1700000000, "/usr/bin/", "alpha")
	b := make([]byte, ndbPage+ndbBlock+len(h))
	for i, v := range []uint32{ndbMagic, 0, 1, 1} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	for at := ndbHeader; at < ndbPage; at += ndbBlock {
		binary.LittleEndian.PutUint32(b[at:], ndbSlotMagic)
	}
	binary.LittleEndian.PutUint32(b[ndbHeader+4:], 1)
	binary.LittleEndian.PutUint32(b[ndbHeader+8:], ndbPage/ndbBlock)
	for i, v := range []uint32{ndbBlobMagic, 1, 1, uint32(len(h))} {
		binary.LittleEndian.PutUint32(b[ndbPage+4*i:], v)
	}
	copy(b[ndbPage+ndbBlock:], h)
	return b
}

func smallBDB() []byte {
	const size = 512
	h := header("alpha", 1700000000, "/usr/bin/", "alpha")
	b := make([]byte, 3*size)
	put32 := func(at int, v uint32) { binary.LittleEndian.PutUint32(b[at:], v) }
	put16 := func(at, v int) { binary.LittleEndian.PutUint16(b[at:], uint16(v)) }
	put32(12, bdbMagic)
	put32(20, size)
	put32(32, 2)
	b[25] = bdbHashMeta
	page := size
	b[page+25] = bdbHash
	put16(page+20, 2)
	put16(page+bdbHead, size-5)
	put16(page+bdbHead+2, size-17)
	b[page+size-5] = bdbInline
	put32(page+size-4, 1)
	b[page+size-17] = bdbOffPage
	put32(page+size-13, 2)
	put32(page+size-9, uint32(len(h)))
	page = 2 * size
	b[page+25] = bdbOverflow
	put16(page+22, len(h))
	copy(b[page+bdbHead:], h)
	return b
}

func smallSQLite() []byte {
	const size = 512
	h := header("alpha", 1700000000, "/usr/bin/", "alpha")
	b := make([]byte, 2*size)
	copy(b, sqliteMagic)
	binary.BigEndian.PutUint16(b[16:], size)
	leaf := func(head, page int, record []byte) {
		cell := append([]byte{byte(0x80 | len(record)>>7), byte(len(record) & 0x7f), 1}, record...)
		at := size - len(cell)
		b[head] = pageLeaf
		binary.BigEndian.PutUint16(b[head+3:], 1)
		binary.BigEndian.PutUint16(b[head+8:], uint16(at))
		copy(b[page*size+at:], cell)
	}
	leaf(sqliteHeader, 0, []byte("\x06\x17\x1d\x1d\x01\x0dtablePackagesPackages\x02"))
	kind := 12 + 2*len(h)
	leaf(size, 1, append([]byte{4, 0, byte(0x80 | kind>>7), byte(kind & 0x7f)}, h...))
	return b
}

func smallWAL() []byte {
	b := make([]byte, walHeader)
	binary.BigEndian.PutUint32(b, walMagicBig)
	binary.BigEndian.PutUint32(b[8:], 512)
	sum := checksum(binary.BigEndian, [2]uint32{}, b[:24])
	binary.BigEndian.PutUint32(b[24:], sum[0])
	binary.BigEndian.PutUint32(b[28:], sum[1])
	for _, commit := range []uint32{5, 0} {
		frame := make([]byte, walFrame+512)
		binary.BigEndian.PutUint32(frame, 3)
		binary.BigEndian.PutUint32(frame[4:], commit)
		sum = checksum(binary.BigEndian, sum, frame[:8])
		sum = checksum(binary.BigEndian, sum, frame[walFrame:])
		binary.BigEndian.PutUint32(frame[16:], sum[0])
		binary.BigEndian.PutUint32(frame[20:], sum[1])
		b = append(b, frame...)
	}
	return b
}
