// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"security-exporter/internal/api"
	"security-exporter/internal/stream"
	"security-exporter/internal/testkit"
)

// lines reads the records of an output, with those that were rotated away.
func lines(t *testing.T, path string) (records []stream.Record) {
	t.Helper()
	ext := filepath.Ext(path)
	files, err := filepath.Glob(strings.TrimSuffix(path, ext) + "*" + ext)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // rotated a moment ago
		}
		for line := range bytes.Lines(text) {
			if line[len(line)-1] != '\n' {
				break // being written
			}
			var r stream.Record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatalf("%v: %q", err, line)
			}
			records = append(records, r)
		}
	}
	return records
}

// within waits for something that takes a moment.
func within(t *testing.T, p *process, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s\n%s", what, p.stderr())
		}
	}
}

// unixClient talks HTTP over the socket.
func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
}

// TestContainerInEvents: what runs in a container is named from its first exec
// on, in the rankings and in the events.
func TestContainerInEvents(t *testing.T) {
	testkit.RequireBPF(t)
	d := testkit.StartContainerd(t)
	out := filepath.Join(t.TempDir(), "events.json")
	p := start(t, "--ebpf.enabled", "--ebpf.probes=process", "--path.rootfs="+d.Rootfs, "--events.output=file:"+out, "--ebpf.top-n=50")
	p.page(t) // waits for the probes
	name := "e2e-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() { d.Remove("default", name) })
	const runs = 3
	for range runs {
		if err := d.Try("run", "--rm", "--snapshotter", "native", "--rootfs", d.Bundle, name, "/bin/sh", "-c", "/bin/true; /bin/true; exit 0"); err != nil {
			t.Fatal(err)
		}
	}
	var inside []stream.Record
	within(t, p, "the container's execs", func() bool {
		inside = slices.DeleteFunc(lines(t, out), func(r stream.Record) bool { return r.ExecutablePath != "/bin/busybox" })
		return len(inside) >= 3*runs
	})
	for _, r := range inside {
		if r.ContainerName != name || r.ContainerID != name || r.Runtime != "containerd" || r.Class != "container" {
			t.Errorf("not labelled: %+v", r)
		}
		if r.Arguments != nil {
			t.Errorf("arguments without the flag: %q", r.Arguments)
		}
	}
	series := fmt.Sprintf("security_ebpf_top_exec{container=%q,key=\"/bin/busybox\"}", name)
	if got := value(t, p.page(t), series); got != 3*runs {
		t.Errorf("%s is %v, want %d", series, got, 3*runs)
	}
	p.stop(t)
}

// shown fails the test if text has what a terminal would act on, or is no
// UTF-8.
func shown(t *testing.T, what, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is no UTF-8: %q", what, text)
	}
	for _, r := range text {
		if (r < ' ' && r != '\n') || (r >= 0x7f && r < 0xa0) {
			t.Errorf("%s has the control character %q: %q", what, r, text)
			return
		}
	}
}

// TestHostileNames executes a program whose path and name hold what breaks
// lines, terminals and encodings, and looks at every way out.
func TestHostileNames(t *testing.T) {
	testkit.RequireBPF(t)
	dir := filepath.Join(t.TempDir(), "a\nb\x1b[31m\xff\"\\{}=1")
	program := filepath.Join(dir, "x\n\x1b]0;\xff\x9b\"")
	text, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	out, socket := filepath.Join(t.TempDir(), "events.json"), filepath.Join(t.TempDir(), "api.sock")
	p := start(t, "--ebpf.enabled", "--ebpf.probes=process", "--events.arguments", "--events.output=file:"+out,
		"--api.listen-address="+socket, "--ebpf.top-n=3")
	p.page(t)
	followed := exec.Command(binary, "events", "--api.address="+socket, "--kind=exec", "--class=suspicious")
	pipe, err := followed.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := followed.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = followed.Process.Kill(); _ = followed.Wait() }()
	time.Sleep(300 * time.Millisecond)
	const n = 200
	argument := "one\ntwo\x1b[2J\xfe"
	for range n {
		if err := exec.Command(program, argument).Run(); err != nil {
			t.Fatal(err)
		}
	}
	// more programs than the ranking shows
	for i := range 4 {
		other := filepath.Join(t.TempDir(), fmt.Sprint("other", i))
		if err := os.WriteFile(other, text, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(other).Run(); err != nil {
			t.Fatal(err)
		}
	}
	var mine []stream.Record
	within(t, p, "the events", func() bool {
		mine = slices.DeleteFunc(lines(t, out), func(r stream.Record) bool { return !strings.HasSuffix(r.ExecutablePath, "\n\x1b]0;\ufffd\ufffd\"") })
		return len(mine) == n
	})
	if got := mine[0]; got.ExecutableName != "x\n\x1b]0;\ufffd\ufffd\"" || len(got.Arguments) != 2 || got.Arguments[1] != "one\ntwo\x1b[2J\ufffd" || got.Class != "suspicious" {
		t.Errorf("%+v", got)
	}

	var page string
	var families map[string]*dto.MetricFamily
	within(t, p, "a full ranking", func() bool { // the other programs come after
		page = p.page(t)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err = parser.TextToMetricFamilies(strings.NewReader(page))
		if err != nil {
			t.Fatal(err)
		}
		return len(families["security_ebpf_top_exec"].GetMetric()) >= 3
	})
	top := families["security_ebpf_top_exec"].GetMetric()
	if len(top) != 3 {
		t.Errorf("%d series of the ranking, want --ebpf.top-n", len(top))
	}
	found := false
	for _, m := range top {
		for _, l := range m.GetLabel() {
			shown(t, "a label", strings.ReplaceAll(l.GetValue(), "\n", "\x00"))
			found = found || strings.Contains(l.GetValue(), "[31m")
		}
	}
	if !found {
		t.Errorf("%d execs are not in the ranking: %v", n, top)
	}

	code, list, errs := command(t, "top", "--once", "--api.address="+socket)
	if code != 0 || !strings.Contains(list, "[31m") {
		t.Errorf("top: exit %d, %q, %s", code, list, errs)
	}
	shown(t, "top", list)
	seen := 0
	for reader := bufio.NewScanner(pipe); seen < 5 && reader.Scan(); {
		line := reader.Text()
		shown(t, "events", line)
		if strings.Contains(line, "[31m") {
			seen++
		}
	}
	if seen != 5 {
		t.Errorf("events shows %d", seen)
	}
	code, list, _ = command(t, "top", "--once", "--json", "--by=exec", "--n=2", "--window=start", "--api.address="+socket)
	var answer api.TopAnswer
	if err := json.Unmarshal([]byte(list), &answer); err != nil || code != 0 || len(answer.Entries) != 2 || answer.Entries[0].Count < answer.Entries[1].Count {
		t.Errorf("top --json: exit %d, %v: %s", code, err, list)
	}
	p.stop(t)
}

// opens opens a file n times.
func opens(t *testing.T, path string, n int) {
	t.Helper()
	for range n {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}

// TestSlowReaders: a client that does not read, and a disk that is full, lose
// events with a count, and neither the other outputs nor the counters notice.
func TestSlowReaders(t *testing.T) {
	testkit.RequireBPF(t)
	dir := t.TempDir()
	watched, config := filepath.Join(dir, "watched"), filepath.Join(dir, "config.yml")
	rules := fmt.Sprintf("file_access:\n  defaults: false\n  rules:\n  - path: %s\n    read: info\n    write: warning\n", watched)
	for path, text := range map[string]string{watched: "x", config: rules} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, socket := filepath.Join(dir, "events.json"), filepath.Join(dir, "api.sock")
	args := []string{"--ebpf.enabled", "--ebpf.probes=file", "--config.file=" + config, "--ebpf.max-events-per-second=1000000"}
	p := start(t, append(args, "--events.output=file:"+out, "--events.file-size=1", "--events.file-backups=100", "--api.listen-address="+socket)...)
	full := start(t, append(args, "--events.output=file:/dev/full")...)
	p.page(t)
	full.page(t)

	for query, want := range map[string]string{
		"events?nope=1": "nope", "events?kind=nope": "nope", "events?min_severity=nope": "nope", "top": "by", "top?by=nope": "nope",
		"top?by=exec&n=-1": "-1", "top?by=exec&window=nope": "nope", "status?x=1": "x",
	} {
		resp, err := unixClient(socket).Get("http://localhost/api/v1/" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", query, resp.StatusCode, body)
		}
	}

	slow, err := unixClient(socket).Get("http://localhost" + api.EventsPath + "?kind=file")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Body.Close() }()
	sse, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+api.EventsPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	sse.Header.Set("Accept", "text/event-stream")
	second, err := unixClient(socket).Do(sse)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("with Accept: %s", got)
	}
	_ = second.Body.Close()

	const chunk, chunks = 300, 20
	for range chunks { // slower than the ring is read
		opens(t, watched, chunk)
		time.Sleep(60 * time.Millisecond)
	}
	const n = chunk * chunks
	const reads = `security_ebpf_file_access_total{operation="read",severity="info"}`
	dropped := func(page, output string) float64 {
		return value(t, page, fmt.Sprintf("security_ebpf_events_dropped_total{output=%q}", output))
	}
	within(t, p, "all lines in the file", func() bool { return len(lines(t, out)) == n })
	page := p.page(t)
	if got := value(t, page, reads); got != n {
		t.Errorf("%v opens counted, want %d", got, n)
	}
	if api, file := dropped(page, "api"), dropped(page, "file"); api == 0 || file != 0 {
		t.Errorf("dropped: %v for the slow client, %v for the file", api, file)
	}
	if backups, _ := filepath.Glob(filepath.Join(dir, "events-*.json")); len(backups) < 2 {
		t.Errorf("rotated: %v", backups)
	}
	// It reads at last, and is told in the place of the gap.
	told, missing := 0, uint64(0)
	for in := bufio.NewReader(slow.Body); told+int(missing) < n; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			t.Fatalf("%v after %d and %d lost", err, told, missing)
		}
		var r stream.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if r.Kind() == stream.KindLost {
			missing += r.LostRecords
		} else {
			told++
		}
	}
	if told+int(missing) != n || float64(missing) != dropped(page, "api") {
		t.Errorf("%d read and %d lost of %d", told, missing, n)
	}

	page = full.page(t)
	if got := value(t, page, reads); got != n {
		t.Errorf("with a full disk %v opens counted, want %d", got, n)
	}
	if got := dropped(page, "file"); got == 0 {
		t.Error("nothing dropped on a full disk")
	}
	full.stop(t)
	p.stop(t)
}
