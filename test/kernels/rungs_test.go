// SPDX-License-Identifier: Apache-2.0

// Package kernels has the tests that ask what a kernel offers, and what
// becomes of the exporter where it offers less. They are made for the machines
// that tools/testkernels starts, and run on any host.
package kernels

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/file"
	"security-exporter/internal/sensor/probes/kernel"
	"security-exporter/internal/sensor/probes/network"
	"security-exporter/internal/sensor/probes/privilege"
	"security-exporter/internal/sensor/probes/process"
	"security-exporter/internal/testkit"
	"security-exporter/internal/testkit/verified"
)

func TestMain(m *testing.M) { testkit.Main(m, nil) }

func specs() []*probe.Spec {
	return []*probe.Spec{
		privilege.New(), process.New(), network.New(),
		file.New(file.NewRules([]config.FileRule{{Path: "/etc/shadow", Read: config.SeverityCritical, Write: config.SeverityCritical}})),
		kernel.New(),
	}
}

// Each rung of each part is loaded and attached alone. A kernel may lack what
// a rung needs; the verifier must refuse none.
func TestRungs(t *testing.T) {
	host := testkit.Inspect(t)
	// what the exporter sets, and everything on
	full := probe.Settings{Constants: map[string]any{
		"rings": host.RingBuffers, "stream": host.RingBuffers, "detailed": true, "arguments": true,
		"budget_per_window": uint32(100), "sample_rate": uint32(1),
		// any: which it is makes no difference to the verifier
		"legacy_controller": uint32(1),
	}, LogLevel: ebpf.LogLevelStats}
	numbers := verified.Numbers{}
	for _, spec := range specs() {
		parts := slices.Clone(spec.Parts)
		if spec.Compat != nil {
			parts = append(parts, *spec.Compat)
		}
		for _, part := range parts {
			for i, rung := range part.Rungs {
				t.Run(fmt.Sprintf("%s/%s/%d %s", spec.Name(), strings.ReplaceAll(part.Name, " ", "_"), i, strings.ReplaceAll(rung.Hook, "/", ":")), func(t *testing.T) {
					alone := part
					alone.Rungs, alone.Applies, alone.Auxiliary = part.Rungs[i:i+1], nil, false
					one := *spec
					one.Parts, one.Started, one.Stop, one.Compat = []probe.Part{alone}, nil, nil, nil
					shared := probe.NewShared()
					var refused refusals
					host.WithTracefs(func() {
						p := probe.Start(t.Context(), &one, host, shared, full, slog.New(&refused))
						defer func() {
							if err := errors.Join(p.Close(), shared.Close()); err != nil {
								t.Error(err)
							}
						}()
						if !p.Status().Up() {
							refused.judge(t, p.Status())
							return
						}
						countInstructions(t, numbers, p, rung)
					})
				})
			}
		}
	}
	record(t, numbers)
}

// judge fails a test for a refusal that no lack of the kernel explains.
func (r *refusals) judge(t *testing.T, s probe.Status) {
	t.Helper()
	if s.State == probe.Unsupported || s.State == probe.NotApplicable {
		t.Skipf("%s: %s", s.Reason, r.text())
	}
	if s.State == probe.Denied && !testkit.InMachine() {
		t.Skipf("needs a host that does not withhold such hooks from root: %s", r.text())
	}
	t.Errorf("%s, %s: %s", s.State, s.Reason, r.text())
	var verifier *ebpf.VerifierError
	if errors.As(r.last, &verifier) {
		t.Logf("%+v", verifier)
	}
}
