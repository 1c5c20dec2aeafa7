// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"security-exporter/internal/bpf/abi"
)

// HasHelper says whether a BPF helper exists, by its name in enum bpf_func_id.
// One that no program uses tells a release from the one before.
func (h *Host) HasHelper(name string) bool {
	var helpers *btf.Enum
	if h.BTF == nil || h.BTF.TypeByName("bpf_func_id", &helpers) != nil {
		return false
	}
	return slices.ContainsFunc(helpers.Values, func(value btf.EnumValue) bool { return value.Name == "BPF_FUNC_"+name })
}

// hasTracing says whether programs of BTF tracepoints, trampolines and iterators
// exist: since 5.5. A kernel that does not tell may have them.
func (h *Host) hasTracing() bool {
	var types *btf.Enum
	if h.BTF == nil || h.BTF.TypeByName("bpf_prog_type", &types) != nil {
		return true
	}
	return slices.ContainsFunc(types.Values, func(value btf.EnumValue) bool { return value.Name == "BPF_PROG_TYPE_TRACING" })
}

// withoutRings turns ring buffers into arrays for kernels before 5.8, where a
// constant that is false there removes every use of them.
func withoutRings(object *ebpf.CollectionSpec) {
	for _, m := range object.Maps {
		if m.Type == ebpf.RingBuf {
			m.Type, m.KeySize, m.ValueSize, m.MaxEntries = ebpf.Array, 4, 4, 1
		}
	}
}

// withoutHelpers takes out the calls of helpers that the kernel does not have.
// A constant keeps programs from making them, but the verifier takes constants
// into account only since 5.5.
func (h *Host) withoutHelpers(object *ebpf.CollectionSpec) {
	var helpers *btf.Enum
	if h.BTF.TypeByName("bpf_func_id", &helpers) != nil {
		return
	}
	known := map[asm.BuiltinFunc]bool{
		// The library puts those from before 5.5 in their place.
		asm.FnProbeReadKernel: true, asm.FnProbeReadKernelStr: true, asm.FnProbeReadUser: true, asm.FnProbeReadUserStr: true,
	}
	for _, value := range helpers.Values {
		known[asm.BuiltinFunc(value.Value)] = true
	}
	for _, program := range object.Programs {
		for i := range program.Instructions {
			if ins := &program.Instructions[i]; ins.IsBuiltinCall() && !known[asm.BuiltinFunc(ins.Constant)] {
				metadata := ins.Metadata
				*ins = asm.Mov.Imm(asm.R0, 0)
				ins.Metadata = metadata
			}
		}
	}
}

// castFunction is a function of the kernel, since 6.2, that programs call to
// read an address with direct loads. The verifier puts a move in its place.
const castFunction = "bpf_rdonly_cast"

// NeedsCasts is for rungs that read bare addresses with direct loads. See
// Rung.Requires.
func NeedsCasts(h *Host) error {
	if !h.casts {
		return fmt.Errorf("%w: %s, Linux 6.2", ErrHookMissing, castFunction)
	}
	return nil
}

// canCast tries it: where nothing compiles programs, they may call no function
// of the kernel.
func (h *Host) canCast() bool {
	var function *btf.Func
	var task *btf.Struct
	if h.BTF == nil || h.BTF.TypeByName(castFunction, &function) != nil || h.BTF.TypeByName("task_struct", &task) != nil {
		return false
	}
	id, err := h.BTF.TypeID(function)
	of, ofErr := h.BTF.TypeID(task)
	if err != nil || ofErr != nil {
		return false
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R1, 0),
			asm.Mov.Imm(asm.R2, int32(of)),
			{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(id)},
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return false
	}
	return program.Close() == nil
}

// withoutCasts makes each cast a move. What is read then is what the verifier
// knew before; of bare addresses, see NeedsCasts.
func withoutCasts(object *ebpf.CollectionSpec) {
	for _, program := range object.Programs {
		for i := range program.Instructions {
			if ins := &program.Instructions[i]; ins.IsKfuncCall() && ins.Reference() == castFunction {
				*ins = asm.Mov.Reg(asm.R0, asm.R1).WithSymbol(ins.Symbol()).WithSource(ins.Source())
			}
		}
	}
}

// helperOf512 is a helper of 5.12.
const helperOf512 = "check_mtu"

// helperOfSwap is a helper of the release since which a program may have atomic
// operations that return a value; see has_compare_and_swap() in compat.h.
func helperOfSwap(arch string) string {
	if arch == "arm64" {
		return "copy_from_user_task"
	}
	return helperOf512
}

// withoutSwaps takes out the atomic operations that return a value. The verifier
// before 5.12 refuses them also where a constant makes them unreachable.
func withoutSwaps(object *ebpf.CollectionSpec) {
	for _, program := range object.Programs {
		for i := range program.Instructions {
			if ins := &program.Instructions[i]; returnsValue(ins.OpCode.AtomicOp()) {
				metadata := ins.Metadata
				*ins = asm.Mov.Imm(ins.Src, 0)
				ins.Metadata = metadata
			}
		}
	}
}

// withoutSlots gives all room of the tables to the hash tables beside the slots.
func withoutSlots(object *ebpf.CollectionSpec) {
	for name, entries := range map[string]uint32{
		"process_slots": 1, "processes": abi.ProcessesWithoutSlots,
		"socket_sets": 1, "sockets": abi.SocketsWithoutSets, "caller_slots": 1,
	} {
		if m := object.Maps[name]; m != nil {
			m.MaxEntries = entries
		}
	}
}

// withoutGlobalPointers makes functions that take pointers static. The verifier
// before 5.12 verifies no such function apart from its callers.
func withoutGlobalPointers(object *ebpf.CollectionSpec) {
	for _, program := range object.Programs {
		for i := range program.Instructions {
			ins := &program.Instructions[i]
			if function := btf.FuncMetadata(ins); i > 0 && function != nil && takesPointers(function) {
				static := *function
				static.Linkage = btf.StaticFunc
				*ins = btf.WithFuncMetadata(*ins, &static)
			}
		}
	}
}

func returnsValue(op asm.AtomicOp) bool {
	switch op {
	case asm.FetchAdd, asm.FetchAnd, asm.FetchOr, asm.FetchXor, asm.Xchg, asm.CmpXchg:
		return true
	default:
		return false
	}
}

func takesPointers(function *btf.Func) bool {
	proto, ok := function.Type.(*btf.FuncProto)
	if !ok || function.Linkage != btf.GlobalFunc {
		return false
	}
	return slices.ContainsFunc(proto.Params, func(param btf.FuncParam) bool {
		_, ok := btf.UnderlyingType(param.Type).(*btf.Pointer)
		return ok
	})
}
