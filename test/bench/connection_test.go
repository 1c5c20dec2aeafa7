//go:build amd64

// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/network"
	"security-exporter/internal/testkit"
)

// BenchmarkConnection takes what a TCP connection pays apart: the hook alone, a
// second program on it, what they do, and the events, which nobody reads here.
func BenchmarkConnection(b *testing.B) {
	const first, second = "on_inet_sock_set_state", "on_held_up_inet_sock_set_state"
	host := testkit.Inspect(b)
	works := slices.DeleteFunc(workloads(b), func(w *workload) bool { return w.name != oneConnection })
	pin(b)
	variants := []struct {
		name   string
		parts  []string
		empty  []string
		stream bool
		ns     []float64
	}{
		{name: "bare"},
		{name: "an empty program", parts: []string{"tcp"}, empty: []string{first}},
		{name: "two empty programs", parts: []string{"tcp", "tcp in interrupts"}, empty: []string{first, second}},
		{name: "the first, counting", parts: []string{"tcp"}},
		{name: "both, counting", parts: []string{"tcp", "tcp in interrupts"}},
		{name: "both, with events", parts: []string{"tcp", "tcp in interrupts"}, stream: true},
	}
	for range *rounds {
		for i := range variants {
			v := &variants[i]
			spec := network.New()
			spec.Started = nil
			spec.Parts = slices.DeleteFunc(spec.Parts, func(p probe.Part) bool { return !slices.Contains(v.parts, p.Name) })
			if len(spec.Parts) != len(v.parts) {
				b.Fatalf("the probe has no parts %q", v.parts)
			}
			shared := probe.NewShared()
			p := probe.Start(context.Background(), spec, host, shared, probe.Settings{
				Constants: map[string]any{"stream": v.stream},
				Edit:      func(object *ebpf.CollectionSpec) { hollow(object, v.empty) },
			}, slog.New(slog.NewTextHandler(b.Output(), nil)))
			if len(v.parts) > 0 && !p.Status().Up() {
				b.Fatalf("%+v", p.Status())
			}
			if err := p.Variable("filling").Set(false); err != nil { // what Started does last
				b.Fatal(err)
			}
			measure(b, works, func(_ *workload, ns float64) { v.ns = append(v.ns, ns) })
			if err := p.Close(); err != nil {
				b.Fatal(err)
			}
			if err := shared.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	fmt.Printf("\n%-32s %10s %9s %9s\n", works[0].name+", ns", "median", "added", "fastest")
	bare := variants[0].ns
	for _, v := range variants {
		fmt.Printf("%-32s %10.0f %+9.0f %+9.0f\n", v.name, median(v.ns), median(v.ns)-median(bare), fastest(v.ns)-fastest(bare))
	}
}

// hollow makes programs do nothing.
func hollow(object *ebpf.CollectionSpec, names []string) {
	for _, name := range names {
		object.Programs[name].Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol(name), asm.Return()}
	}
}
