// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func build(t *testing.T, folder string) string {
	t.Helper()
	program := filepath.Join(folder, "security-exporter")
	c := exec.Command("go", "build", "-buildvcs=false", "-o", program, "security-exporter/cmd/security-exporter")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return program
}

// exporter is a running exporter.
type exporter struct {
	command *exec.Cmd
	url     string
	client  *http.Client
	output  bytes.Buffer
	ended   bool
}

// start starts the exporter with everything on and waits until it is ready.
func start(t *testing.T, program, folder string) *exporter {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	// Each life has connections of its own.
	e := &exporter{url: "http://" + address, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}}
	e.command = exec.Command(program, "--ebpf.enabled", "--web.listen-address="+address,
		"--config.file="+configuration(folder), "--events.output=file:"+filepath.Join(folder, "events"), "--events.file-size=1",
		"--api.listen-address="+filepath.Join(folder, "api.sock"))
	e.command.Stdout, e.command.Stderr = &e.output, &e.output
	if err := e.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !e.ended {
			_ = e.command.Process.Kill()
			_ = e.command.Wait()
			t.Log(e.output.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if response, err := e.client.Get(e.url + "/readyz"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return e
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready after a minute\n%s", e.output.String())
		}
	}
}

func (e *exporter) pid() int { return e.command.Process.Pid }

// end sends a signal and waits. SIGTERM must end it cleanly.
func (e *exporter) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	e.client.CloseIdleConnections()
	if err := e.command.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	err := e.command.Wait()
	e.ended = true
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if signal == syscall.SIGKILL != killed || err != nil && !killed {
		t.Errorf("ended with %v after %s\n%s", err, signal, e.output.String())
	}
}

// counters are the values of all counters of a page, by series.
type counters map[string]float64

func (e *exporter) scrape() (counters, error) {
	families, err := e.families()
	if err != nil {
		return nil, err
	}
	out := counters{}
	for name, family := range families {
		if family.GetType() != dto.MetricType_COUNTER {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := make([]string, 0, len(m.GetLabel()))
			for _, label := range m.GetLabel() {
				labels = append(labels, label.GetName()+"="+strconv.Quote(label.GetValue()))
			}
			out[name+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue()
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no counters on the page")
	}
	return out, nil
}

func (e *exporter) families() (map[string]*dto.MetricFamily, error) {
	response, err := e.client.Get(e.url + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(response.Body)
}

// reload has the exporter apply its configuration again, and waits until it has.
func (e *exporter) reload(t *testing.T) {
	t.Helper()
	const name = "security_exporter_config_last_reload_"
	state := func() (successful, at float64) {
		families, err := e.families()
		if err != nil {
			t.Fatal(err)
		}
		for suffix, value := range map[string]*float64{"successful": &successful, "success_timestamp_seconds": &at} {
			metrics := families[name+suffix].GetMetric()
			if len(metrics) != 1 {
				t.Fatalf("%s%s: %d series", name, suffix, len(metrics))
			}
			*value = metrics[0].GetGauge().GetValue()
		}
		return successful, at
	}
	_, before := state()
	if err := e.command.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		successful, at := state()
		if successful != 1 {
			t.Fatalf("the configuration was not applied\n%s", e.output.String())
		}
		if at > before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the configuration was not applied within 10 s\n%s", e.output.String())
		}
	}
}

// lessThan are the counters that were greater before.
func (c counters) lessThan(before counters) []string {
	var out []string
	for series, value := range c {
		if was, ok := before[series]; ok && value < was {
			out = append(out, fmt.Sprintf("%s: %v, was %v", series, value, was))
		}
	}
	slices.Sort(out)
	return out
}

// objects are the BPF objects of a process, by the kernel's ids.
type objects struct{ programs, maps, links map[uint64]bool }

func (o objects) count() int { return len(o.programs) + len(o.maps) + len(o.links) }

// settledObjects waits until what comes and goes, as at a reload, is gone.
func (e *exporter) settledObjects(t *testing.T) objects {
	t.Helper()
	now := e.objects(t)
	for range 50 {
		time.Sleep(200 * time.Millisecond)
		before := now
		if now = e.objects(t); now.count() == before.count() {
			return now
		}
	}
	t.Fatalf("the number of BPF objects is never the same: %d now", now.count())
	return now
}

// more names the programs and maps that others does not have, and numbers the links.
func (o objects) more(others objects) []string {
	var out []string
	for id := range o.programs {
		if program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil && !others.programs[id] {
			out = append(out, "program "+program.String())
			_ = program.Close()
		}
	}
	for id := range o.maps {
		if m, err := ebpf.NewMapFromID(ebpf.MapID(id)); err == nil && !others.maps[id] {
			out = append(out, "map "+m.String())
			_ = m.Close()
		}
	}
	for id := range o.links {
		if !others.links[id] {
			out = append(out, fmt.Sprintf("link %d", id))
		}
	}
	return out
}

func (e *exporter) objects(t *testing.T) objects {
	t.Helper()
	o := objects{map[uint64]bool{}, map[uint64]bool{}, map[uint64]bool{}}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", e.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a connection that is over
		}
		// A link names its program, too.
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			ids := map[string]map[uint64]bool{"prog_id": o.programs, "map_id": o.maps, "link_id": o.links}[name]
			if ids == nil {
				continue
			}
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			ids[id] = true
		}
	}
	// Maps that only a program holds.
	for id := range o.programs {
		program, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			t.Fatalf("program %d: %v", id, err)
		}
		info, err := program.Info()
		if err != nil {
			t.Fatalf("program %d: %v", id, err)
		}
		held, _ := info.MapIDs()
		for _, id := range held {
			o.maps[uint64(id)] = true
		}
		if err := program.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(o.programs) == 0 || len(o.maps) == 0 || len(o.links) == 0 {
		t.Fatalf("%d programs, %d maps, %d links", len(o.programs), len(o.maps), len(o.links))
	}
	return o
}

// expectGone: the kernel frees objects a little after their last user.
func (o objects) expectGone(t *testing.T) {
	t.Helper()
	gone := func(id uint64, open func(uint64) (interface{ Close() error }, error)) bool {
		object, err := open(id)
		if err == nil {
			err = object.Close()
		}
		return errors.Is(err, os.ErrNotExist)
	}
	var left []string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left = nil
		for id := range o.programs {
			if !gone(id, func(id uint64) (interface{ Close() error }, error) { return ebpf.NewProgramFromID(ebpf.ProgramID(id)) }) {
				left = append(left, fmt.Sprintf("program %d", id))
			}
		}
		for id := range o.maps {
			if !gone(id, func(id uint64) (interface{ Close() error }, error) { return ebpf.NewMapFromID(ebpf.MapID(id)) }) {
				left = append(left, fmt.Sprintf("map %d", id))
			}
		}
		for id := range o.links {
			if !gone(id, func(id uint64) (interface{ Close() error }, error) { return link.NewFromID(link.ID(id)) }) {
				left = append(left, fmt.Sprintf("link %d", id))
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("left 20 s after the end: %v", left)
			return
		}
	}
}
