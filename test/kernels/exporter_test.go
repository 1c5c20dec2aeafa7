// SPDX-License-Identifier: Apache-2.0

package kernels

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"security-exporter/internal/testkit"
)

// exporterVariable names the program under test; the machines set it.
const exporterVariable = "SECURITY_EXPORTER_TEST_PROGRAM"

// exporter is a running exporter.
type exporter struct {
	command *exec.Cmd
	url     string
	output  bytes.Buffer
}

// startExporter starts the program with every probe and waits until the first
// page is there.
func startExporter(t *testing.T, attributes *syscall.SysProcAttr, arguments ...string) *exporter {
	t.Helper()
	program := os.Getenv(exporterVariable)
	if program == "" || !testkit.InMachine() {
		t.Skip("needs a machine of tools/testkernels, which is all its own")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	e := &exporter{url: "http://" + address}
	e.command = exec.Command(program, append([]string{"--ebpf.enabled", "--web.listen-address=" + address}, arguments...)...)
	e.command.SysProcAttr = attributes
	e.command.Stdout, e.command.Stderr = &e.output, &e.output
	if err := e.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.stop(t) })
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if response, err := http.Get(e.url + "/readyz"); err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return e
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the exporter is not ready after five minutes")
		}
	}
}

// stop ends the exporter, and shows what it said if the test has failed.
func (e *exporter) stop(t *testing.T) {
	if e.command.ProcessState != nil {
		return
	}
	_ = e.command.Process.Signal(syscall.SIGTERM)
	// Emulated, detaching takes longer than the exporter allows itself.
	if err := e.command.Wait(); err != nil && !strings.Contains(e.output.String(), "Cannot stop in time") {
		t.Errorf("the exporter ended with %v", err)
	}
	if t.Failed() {
		t.Log(e.output.String())
	}
}

func (e *exporter) page(t *testing.T) string {
	t.Helper()
	response, err := http.Get(e.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

var infoLine = regexp.MustCompile(`(?m)^security_ebpf_probe_info\{(.*)\} 1$`)

// info is security_ebpf_probe_info: for each probe its other labels.
func (e *exporter) info(t *testing.T) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, line := range infoLine.FindAllStringSubmatch(e.page(t), -1) {
		labels := map[string]string{}
		for _, pair := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(line[1], -1) {
			labels[pair[1]] = pair[2]
		}
		out[labels["probe"]] = labels
	}
	if len(out) != 5 {
		t.Fatalf("%d probes on the page, want 5: %v", len(out), out)
	}
	return out
}

func probesOf(info map[string]map[string]string) []string {
	var names []string
	for name := range info {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// allUp fails the test unless every probe is attached, or each of those named.
func (e *exporter) allUp(t *testing.T, probes ...string) {
	t.Helper()
	info := e.info(t)
	if probes == nil {
		probes = probesOf(info)
	}
	for _, name := range probes {
		if info[name]["state"] != "attached" {
			t.Errorf("%s: %s, %s (%s)", name, info[name]["state"], info[name]["reason"], info[name]["hook"])
		}
	}
}

// The exporter attaches what the policy asks for, and says which hooks it
// took. With auto nothing is missing.
func TestPolicies(t *testing.T) {
	trampolines := false
	for _, policy := range []string{"auto", "fentry", "kprobe", "tracepoint"} {
		t.Run(policy, func(t *testing.T) {
			if policy == "fentry" && trampolines {
				t.Skip("needs a kernel on which auto takes others")
			}
			start := time.Now()
			e := startExporter(t, nil, "--ebpf.hook-policy="+policy)
			ready := time.Since(start)
			info := e.info(t)
			trampolines = trampolines || strings.Contains(info["file"]["hook"], "fexit")
			var words []string
			for _, name := range probesOf(info) {
				word := name + "=" + strings.ReplaceAll(info[name]["hook"], " ", "+")
				if state := info[name]["state"]; state != "attached" {
					word += "(" + state + "," + info[name]["reason"] + ")"
					if policy == "auto" || state != "unsupported" {
						t.Errorf("%s: %s", name, word)
					}
				}
				words = append(words, word)
			}
			fmt.Printf("\n@@ rungs %s %s ready=%.1fs\n", policy, strings.Join(words, " "), ready.Seconds())
		})
	}
}

// Two exporters see the same, each for itself.
func TestSecond(t *testing.T) {
	first, second := startExporter(t, nil), startExporter(t, nil)
	for i, e := range []*exporter{first, second} {
		e.allUp(t)
		const n = 20
		before := e.number(t, `security_ebpf_file_access_total{operation="read",severity="critical"}`)
		for range n {
			if _, err := os.ReadFile("/etc/shadow"); err != nil {
				t.Fatal(err)
			}
		}
		after := e.number(t, `security_ebpf_file_access_total{operation="read",severity="critical"}`)
		if after-before != n {
			t.Errorf("exporter %d: %v reads of /etc/shadow, want %d", i, after-before, n)
		}
	}
	first.stop(t)
	second.allUp(t)
}

func (e *exporter) number(t *testing.T, series string) float64 {
	t.Helper()
	for line := range strings.Lines(e.page(t)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var n float64
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s", series)
	return 0
}

// Root may load programs where others may not.
func TestUnprivilegedDisabled(t *testing.T) {
	if !testkit.InMachine() {
		t.Skip("needs a machine of its own")
	}
	const path = "/proc/sys/kernel/unprivileged_bpf_disabled"
	if err := os.WriteFile(path, []byte("2"), 0); err != nil {
		t.Skipf("needs a kernel with that setting: %v", err)
	}
	// one probe, and the one that all need: it is asked of each program alike
	startExporter(t, nil, "--ebpf.probes=kernel").allUp(t, "kernel")
}
