// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/hostfs"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
	"security-exporter/internal/stream"
	"security-exporter/internal/testkit"
)

// path is a path as the kernel writes it: the components from the last to the
// first.
func path(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	out := ""
	for i := range parts {
		out += parts[len(parts)-1-i] + "\x00"
	}
	return out
}

func raw(e abi.Event, texts ...string) []byte {
	for i, text := range texts {
		e.Lengths[i] = uint16(len(text))
	}
	out := append([]byte{}, unsafe.Slice((*byte)(unsafe.Pointer(&e)), event.HeaderSize)...)
	for _, text := range texts {
		out = append(out, text+strings.Repeat("\x00", abi.TextLen-len(text))...)
	}
	return out
}

// records are what a busy host gives: of 100 events 40 execs, 40 connections,
// 15 opens, 5 changes of privilege; 20,000 keys of each kind, by Zipf's law.
func records(n int, cgroup uint64) [][]byte {
	const keys = 20_000
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 1, keys-1)
	out := make([][]byte, n)
	for i := range out {
		key := int(zipf.Uint64())
		e := abi.Event{
			TimeNs: uint64(time.Hour) + uint64(i)*1000, CgroupId: cgroup, Tgid: uint32(1000 + key), Tid: uint32(1000 + key), Parent: 1,
			Uid: 1000, Euid: 1000, Loginuid: event.NoID, Weight: 1, Class: 1,
		}
		copy(e.Comm[:15], fmt.Sprintf("worker-%d", key))
		program := path(fmt.Sprintf("/usr/lib/application/bin/worker-%d", key))
		switch at := i % 100; {
		case at < 40:
			out[i] = raw(e, program)
		case at < 80:
			e.Kind, e.Probe, e.What, e.Port = uint8(event.Connect), uint8(abi.ProbeNetwork), uint8(abi.DirectionOut), 443
			e.Address = [16]uint8{10: 0xff, 11: 0xff, 12: 10, 13: uint8(key >> 16), 14: uint8(key >> 8), 15: uint8(key)}
			out[i] = raw(e)
		case at < 95:
			e.Kind, e.Probe, e.What = uint8(event.File), uint8(abi.ProbeFile), uint8(abi.SeverityInfo)
			out[i] = raw(e, program, path(fmt.Sprintf("/etc/application/conf.d/%d.conf", key)))
		default:
			e.Kind, e.Probe = uint8(event.Privilege), uint8(abi.ProbePrivilege)
			out[i] = raw(e, program)
		}
	}
	return out
}

// path of an event from its record to the end: decoded, told its program and
// container, ranked and handed on.
func endToEnd(b *testing.B, onEvent func(*event.Event, *identity.Identity)) (func(record []byte), *testkit.Cgroup) {
	b.Helper()
	host := testkit.Inspect(b)
	cgroup := testkit.NewCgroup(b, host)
	options := defaults(quiet(b))
	options.OnEvent = onEvent
	m := New(options)
	root := hostfs.New(hostfs.Paths{})
	m.identity = identity.New(identity.Options{Root: root, CgroupRoot: host.CgroupRoot, Logger: m.log})
	m.programs = identity.NewExecutables(root, nil)
	host.Release()
	b.Cleanup(func() { _ = m.identity.Close() })
	handle := m.handler()
	var e event.Event
	scratch := make([]byte, event.WithTextsSize)
	return func(record []byte) {
		// Decoding turns paths around in place; a ring's record comes once.
		if err := e.Decode(scratch[:copy(scratch, record)]); err != nil {
			b.Fatal(err)
		}
		handle(&e)
	}, cgroup
}

// BenchmarkPath is what an event costs in user space. It fails below 500,000
// events a second, or if events allocate.
func BenchmarkPath(b *testing.B) {
	testkit.RequireBPF(b)
	for name, hub := range map[string]*stream.Hub{"nobody listens": stream.NewHub(), "one reader": stream.NewHub()} {
		b.Run(name, func(b *testing.B) {
			take, cgroup := endToEnd(b, hub.Publish)
			if name == "one reader" {
				reader := hub.Subscribe(stream.OutputFile, stream.Filter{}, stream.DefaultQueue)
				ctx, stop := context.WithCancel(b.Context())
				defer stop()
				go func() {
					for {
						if _, err := reader.Next(ctx); err != nil {
							return
						}
					}
				}()
			}
			all := records(1<<16, cgroup.ID)
			for _, r := range all {
				take(r)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				take(all[i&(1<<16-1)])
				i++
			}
			perSecond := float64(b.N) / b.Elapsed().Seconds()
			b.ReportMetric(perSecond, "events/s")
			if b.N > 100_000 && perSecond < 500_000 {
				b.Errorf("%.0f events/s, want at least 500,000", perSecond)
			}
		})
	}
}
