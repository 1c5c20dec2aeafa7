// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/probe"
)

// identifyBatch is how many files are held open at once while the kernel is
// asked what they are.
const identifyBatch = 256

// identified is a learned path with the kernel's identity of what it names.
type identified struct {
	object abi.Object
	learned
	path string
}

// identify asks the kernel for the identity of every path to be learned. What
// is gone in the meantime, or is no regular file, is left out.
func identify(p *probe.Probe, r *root, want map[string]learned) ([]identified, error) {
	var out []identified
	open := map[int]identified{}
	flush := func() error {
		defer func() {
			for fd := range open {
				unix.Close(fd)
			}
			clear(open)
		}()
		found, err := descriptorObjects(p)
		if err != nil {
			return err
		}
		for fd, file := range open {
			object, ok := found[uint32(fd)]
			if !ok {
				return fmt.Errorf("the kernel did not report descriptor %d (%s)", fd, file.path)
			}
			file.object = object
			out = append(out, file)
		}
		return nil
	}
	for name, as := range want {
		flags := unix.O_NOFOLLOW
		if as.follow {
			flags = 0
		}
		fd, err := r.open(name, flags)
		if err != nil {
			continue
		}
		if !as.fits(fd) {
			unix.Close(fd)
			continue
		}
		open[fd] = identified{path: name, learned: as}
		if len(open) == identifyBatch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return out, nil
}

func (as learned) fits(fd int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return false
	}
	if as.directory {
		return st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	return st.Mode&unix.S_IFMT == unix.S_IFREG
}

// descriptorObjects runs the iterator that reports what the exporter's own
// O_PATH descriptors refer to.
func descriptorObjects(p *probe.Probe) (map[uint32]abi.Object, error) {
	const limit = 1 << 20
	data, err := p.Iterate("identify", limit)
	if err != nil {
		return nil, err
	}
	size := int(unsafe.Sizeof(abi.Identity{}))
	out := make(map[uint32]abi.Object, len(data)/size)
	for ; len(data) >= size; data = data[size:] {
		record := decodeIdentity(data)
		out[record.Fd] = record.Object
	}
	return out, nil
}

func decodeIdentity(data []byte) abi.Identity {
	var record abi.Identity
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&record)), unsafe.Sizeof(record)), data)
	return record
}
