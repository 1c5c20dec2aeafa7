// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// Policy restricts the rungs that may be used to those with one kind of hook.
// A part that has no such rung is left with the kinds after it.
type Policy string

// The policies. Tracepoint allows BTF, raw and classic ones; Raw and Classic
// are the last two kinds of them alone.
const (
	PolicyAuto       Policy = "auto"
	PolicyFentry     Policy = "fentry"
	PolicyKprobe     Policy = "kprobe"
	PolicyTracepoint Policy = "tracepoint"
	PolicyRaw        Policy = "raw"
	PolicyClassic    Policy = "classic"
)

// kind orders hooks by what they ask of the kernel. A rung has that of its
// most demanding program.
type kind int

const (
	kindOther kind = iota // iterators and cgroup programs: nothing else can do what they do
	kindClassic
	kindRaw
	kindBTF
	kindKprobe
	kindTrampoline
)

func kindOf(spec *ebpf.ProgramSpec) kind {
	switch {
	case isTrampoline(spec) || spec.Type == ebpf.LSM:
		return kindTrampoline
	case spec.Type == ebpf.Kprobe:
		return kindKprobe
	case spec.Type == ebpf.Tracing && spec.AttachType == ebpf.AttachTraceRawTp:
		return kindBTF
	case spec.Type == ebpf.RawTracepoint:
		return kindRaw
	case spec.Type == ebpf.TracePoint:
		return kindClassic
	default:
		return kindOther
	}
}

// kinds are those that a policy asks for, from best to least.
func (p Policy) kinds() (best, least kind) {
	switch p {
	case PolicyFentry:
		return kindTrampoline, kindTrampoline
	case PolicyKprobe:
		return kindKprobe, kindKprobe
	case PolicyTracepoint:
		return kindBTF, kindClassic
	case PolicyRaw:
		return kindRaw, kindRaw
	case PolicyClassic:
		return kindClassic, kindClassic
	default:
		return kindTrampoline, kindOther
	}
}

func (p *Probe) kindOfRung(rung *Rung) kind {
	most := kindOther
	for _, name := range rung.Programs {
		if spec, ok := p.object.Programs[name]; ok {
			most = max(most, kindOf(spec))
		}
	}
	return most
}

// allowed are the rungs of a part that the policy leaves.
func (p *Probe) allowed(part *Part) ([]*Rung, error) {
	best, least := p.settings.Policy.kinds()
	var exact, below []*Rung
	for i := range part.Rungs {
		rung := &part.Rungs[i]
		switch kind := p.kindOfRung(rung); {
		case kind > best:
		case kind >= least:
			exact = append(exact, rung)
		default:
			below = append(below, rung)
		}
	}
	if p.host.preempts && best != least {
		exact = p.kprobesFirst(exact)
	}
	if len(exact) > 0 {
		return exact, nil
	}
	if len(below) > 0 {
		return below, nil
	}
	return nil, fmt.Errorf("%w: --ebpf.hook-policy=%s leaves none", ErrHookMissing, p.settings.Policy)
}

// kprobesFirst: on a kernel that preempts programs only those of kprobes run
// for every call.
func (p *Probe) kprobesFirst(rungs []*Rung) []*Rung {
	var kprobes, others []*Rung
	for _, rung := range rungs {
		if p.kindOfRung(rung) == kindKprobe {
			kprobes = append(kprobes, rung)
		} else {
			others = append(others, rung)
		}
	}
	return slices.Concat(kprobes, others)
}
