// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// hostWith is a kernel with these types.
func hostWith(t *testing.T, types ...btf.Type) *Host {
	t.Helper()
	builder, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := builder.Spec()
	if err != nil {
		t.Fatal(err)
	}
	return &Host{BTF: spec}
}

// function is one of the kernel's that takes pointers.
func function(name string, params ...string) *btf.Func {
	proto := &btf.FuncProto{Return: &btf.Void{}}
	for _, param := range params {
		proto.Params = append(proto.Params, btf.FuncParam{Name: param, Type: &btf.Pointer{Target: &btf.Void{}}})
	}
	return &btf.Func{Name: name, Type: proto, Linkage: btf.StaticFunc}
}

// A kernel may have one system call's function twice, and other functions of
// one name that are not the same.
func TestFunctionParams(t *testing.T) {
	t.Parallel()
	h := hostWith(t,
		function("once", "a", "b"),
		function("__x64_sys_capset", "__unused"), function("__x64_sys_capset", "regs"),
		function("twice", "a"), function("twice", "a", "b"),
	)
	for name, want := range map[string]int{"once": 2, "__x64_sys_capset": 1, "twice": -1, "never": -1} {
		for range 2 { // the first time may change what was read
			if got := h.FunctionParams(name); got != want {
				t.Errorf("%s has %d parameters, want %d", name, got, want)
			}
		}
	}
	var chosen *btf.Func
	if err := h.BTF.TypeByName("__x64_sys_capset", &chosen); err != nil {
		t.Errorf("what is loaded finds no function: %v", err)
	}
}

// Trampolines are used where the kernel holds them as long as it must.
func TestTrampolinesAreHeld(t *testing.T) {
	t.Parallel()
	spec := &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: "vfs_unlink"}
	image := &btf.Struct{Name: "bpf_tramp_image", Size: 8}
	for _, c := range []struct {
		name  string
		types []btf.Type
		want  error
	}{
		{"held", []btf.Type{image, function("vfs_unlink")}, nil},
		{"freed", []btf.Type{function("vfs_unlink")}, errFreesTrampolines},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := hostWith(t, c.types...)
			h.trampolines = true
			if err := h.canAttach(spec); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// Programs compare and swap where the kernel verifies it and the architecture compiles it.
func TestHelperOfSwap(t *testing.T) {
	t.Parallel()
	since := func(helpers ...string) *Host {
		names := &btf.Enum{Name: "bpf_func_id", Size: 4}
		for i, helper := range helpers {
			names.Values = append(names.Values, btf.EnumValue{Name: "BPF_FUNC_" + helper, Value: uint64(i)})
		}
		return hostWith(t, names)
	}
	for _, c := range []struct {
		name         string
		host         *Host
		amd64, arm64 bool
	}{
		{"5.11", since("ktime_get_coarse_ns"), false, false},
		{"5.12", since("ktime_get_coarse_ns", "check_mtu"), true, false},
		{"5.17", since("check_mtu", "xdp_store_bytes"), true, false},
		{"5.18", since("check_mtu", "copy_from_user_task"), true, true},
		{"none", &Host{}, false, false},
	} {
		for arch, want := range map[string]bool{"amd64": c.amd64, "arm64": c.arm64} {
			if got := c.host.HasHelper(helperOfSwap(arch)); got != want {
				t.Errorf("%s %s: %t, want %t", c.name, arch, got, want)
			}
		}
	}
}

// What returns a value is taken out, what only adds stays.
func TestWithoutSwaps(t *testing.T) {
	t.Parallel()
	object := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"p": {Instructions: asm.Instructions{
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
		asm.CmpXchg.Mem(asm.R1, asm.R2, asm.Word, 8).WithSymbol("swap"),
		asm.FetchAdd.Mem(asm.R1, asm.R3, asm.DWord, 0),
		asm.Return(),
	}}}}
	withoutSwaps(object)
	want := []asm.Instruction{
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0), asm.Mov.Imm(asm.R2, 0), asm.Mov.Imm(asm.R3, 0), asm.Return(),
	}
	for i, ins := range object.Programs["p"].Instructions {
		if fmt.Sprint(ins) != fmt.Sprint(want[i]) {
			t.Errorf("instruction %d is %v, want %v", i, ins, want[i])
		}
	}
	if got := object.Programs["p"].Instructions[1].Symbol(); got != "swap" {
		t.Errorf("the function's name is %q", got)
	}
}
