// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"security-exporter/internal/sensor/probe"
)

// BenchmarkCost compares calls with and without the probe, in turns, and
// reports medians. It measures the whole probe on the whole host.
func BenchmarkCost(b *testing.B) {
	for _, c := range []struct {
		name  string
		times int
		setUp func() (round func() error, tearDown func(), err error)
	}{
		{"TCP connect accept close", 3000, func() (func() error, func(), error) {
			conns, err := listen(ipv4, ipv4.address(1, 0), 8)
			if err != nil {
				return nil, nil, err
			}
			return func() error {
				err := conns.open()
				closeAll(&conns.clients)
				closeAll(&conns.servers)
				return err
			}, conns.close, nil
		}},
		{"TCP write read", 30000, func() (func() error, func(), error) {
			conns, err := listen(ipv4, ipv4.address(1, 0), 8)
			if err != nil {
				return nil, nil, err
			}
			buffer := make([]byte, 64)
			return func() error {
				_, werr := unix.Write(conns.clients[0], buffer)
				_, rerr := unix.Read(conns.servers[0], buffer)
				return errors.Join(werr, rerr)
			}, conns.close, conns.open()
		}},
		{"unix write read", 30000, func() (func() error, func(), error) {
			ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			buffer := make([]byte, 64)
			return func() error {
				_, werr := unix.Write(ends[0], buffer)
				_, rerr := unix.Read(ends[1], buffer)
				return errors.Join(werr, rerr)
			}, func() { unix.Close(ends[0]); unix.Close(ends[1]) }, err
		}},
		{"UDP sendto recvfrom", 30000, func() (func() error, func(), error) {
			both, err := newPair(ipv4)
			if err == nil {
				both.client, err = udpSocket(ipv4)
			}
			return func() error {
				err := both.send(both.at)
				_, rerr := take(both.server, 0)
				return errors.Join(err, rerr)
			}, func() { unix.Close(both.client); unix.Close(both.server) }, err
		}},
		{"UDP connected write read", 30000, func() (func() error, func(), error) {
			both, err := newPair(ipv4)
			if err == nil {
				both.client, err = udpSocket(ipv4)
			}
			if err == nil {
				err = unix.Connect(both.client, both.at)
			}
			return func() error {
				return errors.Join(both.send(nil), drain(both.server))
			}, func() { unix.Close(both.client); unix.Close(both.server) }, err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newSpace(b)
			var bare, attached []float64
			s.do(b, func() error {
				round, tearDown, err := c.setUp()
				if err != nil {
					return err
				}
				defer tearDown()
				for range 9 {
					bare = append(bare, perRound(b, c.times, round))
					stop := attachWhole(b)
					attached = append(attached, perRound(b, c.times, round))
					stop()
				}
				return nil
			})
			slices.Sort(bare)
			slices.Sort(attached)
			before, after := bare[len(bare)/2], attached[len(attached)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(before, "ns-bare")
			b.ReportMetric(after-before, "ns-added")
			b.ReportMetric(after/before, "ratio")
		})
	}
}

func perRound(b *testing.B, times int, round func() error) float64 {
	for range times / 10 {
		_ = round()
	}
	begin := time.Now()
	for range times {
		if err := round(); err != nil {
			b.Error(fmt.Errorf("round: %w", err))
			break
		}
	}
	return float64(time.Since(begin).Nanoseconds()) / float64(times)
}

// attachWhole attaches the probe to the whole host and returns its end.
func attachWhole(b *testing.B) func() {
	shared := probe.NewShared()
	p := probe.Start(context.Background(), New(), probe.Inspect("/proc", "/sys", "/"), shared, probe.Settings{}, slog.New(slog.DiscardHandler))
	if !p.Status().Up() {
		b.Error("not attached")
	}
	return func() {
		if err := errors.Join(p.Close(), shared.Close()); err != nil {
			b.Error(err)
		}
	}
}
