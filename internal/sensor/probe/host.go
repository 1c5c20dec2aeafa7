// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Host is what the ladder must know of the kernel, found out once.
type Host struct {
	// ProcFS, SysFS and RootFS are where the host's trees are mounted.
	ProcFS, SysFS, RootFS string
	// BTF are the kernel's types, until Release; BTFErr says why there are
	// none.
	BTF    *btf.Spec
	BTFErr error
	// types keeps what was read of BTF from one program to the next.
	types *btf.Cache
	// CgroupRoot is the root of the v2 hierarchy, empty if there is none.
	CgroupRoot string
	// Legacy is a hierarchy of version 1, if one is mounted.
	Legacy LegacyCgroups
	// RingBuffers: since 5.8.
	RingBuffers bool
	// Swaps: programs may compare and swap; see helperOfSwap.
	Swaps bool
	// Slots: the tables have slots, since 6.2; see has_slots() in compat.h.
	Slots bool
	// casts: programs may call bpf_rdonly_cast(), since 6.2.
	casts bool
	// tracefsErr says why classic tracepoints cannot be found; set by WithTracefs.
	tracefsErr error
	// kprobes: the kernel can make them; trampolines: it has not refused one.
	kprobes, trampolines bool
	// preempts: see preempt.go.
	preempts bool
}

// Inspect looks at the running kernel and holds its types.
func Inspect(procfs, sysfs, rootfs string) *Host {
	h := &Host{ProcFS: procfs, SysFS: sysfs, RootFS: rootfs, tracefsErr: errNoTracefs, trampolines: true, preempts: preempts(sysfs)}
	h.Hold()
	h.Swaps = h.HasHelper(helperOfSwap(runtime.GOARCH))
	h.casts = h.canCast()
	h.Slots = h.Swaps && h.casts
	h.CgroupRoot = cgroupRoot(sysfs)
	h.Legacy = h.legacyCgroups()
	_, err := os.Stat("/sys/bus/event_source/devices/kprobe/type")
	h.kprobes = err == nil
	h.RingBuffers = features.HaveMapType(ebpf.RingBuf) == nil
	return h
}

// canAttach refuses what cannot work before it is loaded, with a reason.
func (h *Host) canAttach(spec *ebpf.ProgramSpec) error {
	switch {
	case spec.Type == ebpf.TracePoint && h.tracefsErr != nil:
		return h.tracefsErr
	case spec.Type == ebpf.TracePoint && !hasTracepoint(spec.AttachTo):
		return fmt.Errorf("%w: %s", ErrHookMissing, spec.AttachTo)
	case spec.Type == ebpf.CGroupSockAddr && h.CgroupRoot == "":
		return errNoCgroup2
	case (spec.Type == ebpf.Tracing || spec.Type == ebpf.LSM) && !h.hasTracing():
		return errNoTracing
	case spec.Type == ebpf.Kprobe && !h.kprobes:
		return fmt.Errorf("%w: kprobes are not compiled in", ErrHookMissing)
	case isTrampoline(spec) && !h.trampolines:
		return errNoTrampolines
	case isTrampoline(spec) && !h.holdsTrampolines():
		return errFreesTrampolines
	case isTrampoline(spec) && h.FunctionParams(spec.AttachTo) < 0:
		return fmt.Errorf("%w: %s", ErrHookMissing, spec.AttachTo)
	}
	return nil
}

// learnFrom remembers that this kernel allows no trampolines at all, which
// some hosted kernels say with EPERM, so that each rung need not try.
func (h *Host) learnFrom(object *ebpf.CollectionSpec, err error) {
	if !errors.Is(err, unix.EPERM) {
		return
	}
	for _, spec := range object.Programs {
		if !isTrampoline(spec) {
			return
		}
	}
	h.trampolines = false
}

func isTrampoline(spec *ebpf.ProgramSpec) bool {
	return spec.Type == ebpf.Tracing && (spec.AttachType == ebpf.AttachTraceFEntry || spec.AttachType == ebpf.AttachTraceFExit)
}

func hasTracepoint(name string) bool {
	for _, path := range tracefsPaths {
		if _, err := os.Stat(filepath.Join(path, "events", name, "id")); err == nil {
			return true
		}
	}
	return false
}

// HasKprobes says whether the kernel can make kprobes.
func (h *Host) HasKprobes() bool { return h.kprobes }

// HasGuard: since 6.1 the kernel keeps each tracing program from running while
// it already runs on the same CPU.
func (h *Host) HasGuard() bool {
	var program *btf.Struct
	return h.BTF != nil && h.BTF.TypeByName("bpf_prog", &program) == nil &&
		slices.ContainsFunc(program.Members, func(m btf.Member) bool { return m.Name == "active" })
}

// holdsTrampolines: since 5.12 the kernel does not free a trampoline that a
// sleeping function has yet to return to, and most functions that programs are
// attached to may sleep. BTF tells, since updates of 5.10 have it too.
func (h *Host) holdsTrampolines() bool {
	var image *btf.Struct
	return h.BTF != nil && h.BTF.TypeByName("bpf_tramp_image", &image) == nil
}

// Hold reads the kernel's types, which whatever is loaded needs.
func (h *Host) Hold() {
	h.types = btf.NewCache()
	if h.BTF, h.BTFErr = h.types.Kernel(); h.BTFErr != nil {
		h.BTFErr = fmt.Errorf("%w: %w", errNoBTF, h.BTFErr)
	}
}

// Release gives back the kernel's types, some tens of megabytes, when the
// ladder has been climbed.
func (h *Host) Release() {
	h.BTF, h.types = nil, nil
	debug.FreeOSMemory()
}

// TracepointParams is the number of arguments of a tracepoint: programs that
// read one more are refused. 0 if the kernel has no such tracepoint.
func (h *Host) TracepointParams(name string) int {
	var typedef *btf.Typedef
	if h.BTF == nil || h.BTF.TypeByName("btf_trace_"+name, &typedef) != nil {
		return 0
	}
	pointer, ok := btf.UnderlyingType(typedef).(*btf.Pointer)
	if !ok {
		return 0
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok {
		return 0
	}
	return len(proto.Params) - 1 // the first is the tracepoint's own data
}

// FunctionParams is the number of parameters of a kernel function, -1 if BTF
// does not list it: trampolines and kprobes need the one that is there.
func (h *Host) FunctionParams(name string) int {
	var function *btf.Func
	if h.BTF == nil {
		return -1
	}
	err := h.BTF.TypeByName(name, &function)
	if errors.Is(err, btf.ErrMultipleMatches) && strings.Contains(name, "_sys_") {
		h.hideStandIns(name)
		err = h.BTF.TypeByName(name, &function)
	}
	if err != nil {
		return -1
	}
	proto, ok := function.Type.(*btf.FuncProto)
	if !ok {
		return -1
	}
	return len(proto.Params)
}

// hideStandIns leaves one function of a system call where BTF lists two: the
// call's own and what kernel/sys_ni.c has for kernels without it, as in Debian's
// 6.1. They have the same type, and the kernel goes by the name. The library
// does not choose, so the others get another name in what was read.
func (h *Host) hideStandIns(name string) {
	types, err := h.BTF.AnyTypesByName(name)
	if err != nil {
		return
	}
	var kept bool
	for _, each := range types {
		function, ok := each.(*btf.Func)
		if ok && kept {
			function.Name += ".stand_in"
		}
		kept = kept || ok
	}
}

const tracefsPath = "/sys/kernel/tracing"

var tracefsPaths = []string{tracefsPath, "/sys/kernel/debug/tracing"}

// WithTracefs runs f where tracefs is mounted. If the host has not mounted
// it, f runs in a thread with a mount namespace of its own, where it is: the
// numbers of the classic tracepoints can be read nowhere else, and the host's
// mounts are not ours to change. The thread ends with f.
func (h *Host) WithTracefs(f func()) {
	if h.tracefsErr = lookForTracefs(); h.tracefsErr == nil {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread dies here
		if mountPrivateTracefs() == nil {
			h.tracefsErr = lookForTracefs()
		}
		f()
	}()
	<-done
}

// lookForTracefs returns nil where classic tracepoints can be found. A tracefs
// in which nothing is belongs to a kernel under lockdown=confidentiality.
func lookForTracefs() error {
	err := error(errNoTracefs)
	for _, path := range tracefsPaths {
		_, missing := os.Stat(filepath.Join(path, "events"))
		if missing == nil {
			return nil
		}
		var at unix.Statfs_t
		switch {
		case errors.Is(missing, os.ErrPermission):
			err = missing
		case unix.Statfs(path, &at) == nil && at.Type == unix.TRACEFS_MAGIC:
			err = fmt.Errorf("%w: its tracefs is empty", errLockdown)
		}
	}
	return err
}

func mountPrivateTracefs() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tracefs", tracefsPath, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount tracefs: %w", err)
	}
	return nil
}
