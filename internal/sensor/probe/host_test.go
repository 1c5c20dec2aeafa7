// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
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
