// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/jsonschema-go/jsonschema"

	"security-exporter/internal/bpf/abi"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/sensor/identity"
)

// testEncoder has clocks that stand still: 10 s after boot it is noon.
func testEncoder() *Encoder {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	return &Encoder{clock: func() (time.Time, time.Duration) { return noon, 10 * time.Second }}
}

func ptr[T any](v T) *T { return &v }

// testEvents has one event of each kind, in order.
func testEvents() []event.Event {
	common := event.Event{
		Monotonic: 11*time.Second + 5, Weight: 3, TGID: 100, TID: 101, Parent: 1, UID: 1000, EUID: 0, LoginUID: 1000,
		CgroupID: 1 << 60, Comm: []byte("sh"), Executable: []byte("/usr/bin/dash"), Class: 1,
	}
	var out []event.Event
	for k := range Kinds() {
		e := common
		e.Kind = event.Kind(k)
		switch uint32(k) {
		case uint32(abi.EventExec):
			e.Class, e.Severity, e.Arguments, e.Truncated = 3, event.Critical, []byte("sh\x00-c\x00\x00x"), true
		case uint32(abi.EventConnect):
			e.Probe, e.Direction, e.Peer = uint8(abi.ProbeNetwork), 1, netip.MustParseAddrPort("[::ffff:192.0.2.1]:443")
		case uint32(abi.EventConnectError):
			e.Probe, e.Severity, e.ConnectError, e.Transport = uint8(abi.ProbeNetwork), event.Warning, 1, 0
			e.Peer = netip.MustParseAddrPort("[2001:db8::1]:22")
		case uint32(abi.EventFile):
			e.Probe, e.Severity, e.Name, e.Operation = uint8(abi.ProbeFile), event.Warning, []byte("/etc/shadow"), 1
		case uint32(abi.EventPrivilege):
			e.Probe, e.Call, e.Result, e.OldID, e.NewID = uint8(abi.ProbePrivilege), 3, 1, 1000, 0
		case uint32(abi.EventGain):
			e.Probe, e.Severity, e.Gain, e.OldCaps, e.NewCaps = uint8(abi.ProbePrivilege), event.Critical, 4, 0, 1<<41-1
		case uint32(abi.EventModule):
			e = event.Event{
				Monotonic: e.Monotonic, Kind: e.Kind, Weight: 1, Probe: uint8(abi.ProbeKernel), Class: event.NoClass,
				LoginUID: event.NoID, Severity: event.Critical, Name: []byte("evil"), Action: 1,
			}
		}
		out = append(out, e)
	}
	return out
}

func decode(t *testing.T, line []byte) Record {
	t.Helper()
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, line)
	}
	return r
}

func TestAppend(t *testing.T) {
	t.Parallel()
	id := &identity.Identity{
		ContainerID: "abc", Runtime: "containerd", ContainerName: "web", Image: "nginx:1", PodUID: "u-1", PodName: "web-0",
		PodNamespace: "prod", Unit: "kubelet.service", OuterID: "out",
	}
	common := Record{
		Schema: 1, Timestamp: "2026-11-22T12:00:01.000000005Z", SeverityText: "info", SeverityNumber: 9, Class: "user", Probe: "process", Weight: ptr[uint32](3),
		PID: ptr[uint32](100), TID: ptr[uint32](101), ParentPID: ptr[uint32](1), UserID: ptr[uint32](0), RealUserID: ptr[uint32](1000), LoginUserID: ptr[uint32](1000),
		ExecutableName: "sh", ExecutablePath: "/usr/bin/dash", CgroupID: "1152921504606846976",
		ContainerID: "abc", Runtime: "containerd", ContainerName: "web", ContainerImage: "nginx:1", PodUID: "u-1", PodName: "web-0", Namespace: "prod", Unit: "kubelet.service", OuterID: "out",
	}
	warning := func(r *Record) { r.SeverityText, r.SeverityNumber = "warning", 13 }
	critical := func(r *Record) { r.SeverityText, r.SeverityNumber = "critical", 18 }
	want := map[string]func(r *Record){
		"exec": func(r *Record) {
			critical(r)
			r.Class, r.Arguments, r.Truncated = "suspicious", []string{"sh", "-c", "", "x"}, true
		},
		"exit": func(*Record) {},
		"connect": func(r *Record) {
			r.Probe, r.Direction, r.Transport, r.NetworkType, r.PeerAddress, r.PeerPort = "network", "out", "tcp", "ipv4", "192.0.2.1", ptr[uint16](443)
		},
		"connect_error": func(r *Record) {
			warning(r)
			r.Probe, r.ErrorType, r.Transport, r.NetworkType, r.PeerAddress, r.PeerPort = "network", "refused", "tcp", "ipv6", "2001:db8::1", ptr[uint16](22)
		},
		"file": func(r *Record) {
			warning(r)
			r.Probe, r.FilePath, r.Operation = "file", "/etc/shadow", "write"
		},
		"privilege": func(r *Record) {
			r.Probe, r.Call, r.Result, r.OldID, r.NewID = "privilege", "suid_exec", "failure", ptr[uint32](1000), ptr[uint32](0)
		},
		"gain": func(r *Record) {
			critical(r)
			r.Probe, r.Via, r.OldID, r.NewID, r.OldCaps, r.NewCaps = "privilege", "userns", ptr[uint32](0), ptr[uint32](0), "0000000000000000", "000001ffffffffff"
		},
		"module": func(r *Record) {
			*r = Record{Schema: 1, Timestamp: r.Timestamp, Probe: "kernel", Weight: ptr[uint32](1), ModuleName: "evil", ModuleAction: "load_file", Result: "success"}
			critical(r)
		},
	}
	for _, ev := range testEvents() {
		w := common
		identity := id
		if ev.TGID == 0 {
			identity = nil
		}
		want[ev.Kind.String()](&w)
		w.EventName = "security." + ev.Kind.String()
		line := testEncoder().Append(nil, &ev, identity)
		if got := decode(t, line); !reflect.DeepEqual(got, w) {
			t.Errorf("%s\n got %+v\nwant %+v", line, got, w)
		}
	}
}

// Every kind, with and without what may be missing, fits the schema that is
// documented, and the schema refuses what is not documented.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/events.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	validate := func(line []byte) error {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		return resolved.Validate(v)
	}
	lines := [][]byte{appendLost(nil, time.Now(), 4, 9)}
	for _, ev := range testEvents() {
		bare := event.Event{
			Kind: ev.Kind, Probe: ev.Probe, Class: event.NoClass, Weight: 1, LoginUID: event.NoID,
			Direction: ev.Direction, Transport: ev.Transport, ConnectError: ev.ConnectError, Operation: ev.Operation,
		}
		full := &identity.Identity{
			ContainerID: "a\n", OuterID: "o", Runtime: "docker", ContainerName: "b", Image: "c", PodUID: "d", PodName: "e",
			PodNamespace: "f", Unit: "\xff",
		}
		lines = append(lines, NewEncoder().Append(nil, &ev, full), NewEncoder().Append(nil, &bare, nil))
	}
	for _, line := range lines {
		if err := validate(line); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		for _, change := range []string{`{"schema":2,`, `{"schema":1,"nope":1,`} {
			bad := bytes.Replace(line, []byte(`{"schema":1,`), []byte(change), 1)
			if validate(bad) == nil {
				t.Errorf("the schema accepts %s", bad)
			}
		}
	}
	// Each documented field is one of Record and the reverse.
	fields := reflect.TypeFor[Record]()
	if n := fields.NumField(); n != len(schema.Properties) {
		t.Errorf("%d fields of Record, %d in the schema", n, len(schema.Properties))
	}
	page, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if schema.Properties[name] == nil {
			t.Errorf("%s is not in the schema", name)
		}
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("%s is not in docs/events.md", name)
		}
	}
}

func TestAppendString(t *testing.T) {
	t.Parallel()
	const bad = "\ufffd"
	for _, c := range []struct{ in, json, back string }{
		{"", `""`, ""},
		{"/usr/bin/sh -c x", `"/usr/bin/sh -c x"`, "/usr/bin/sh -c x"},
		{`a"b\c/`, `"a\"b\\c/"`, `a"b\c/`},
		{"a\nb\r\t\x00", `"a\u000ab\u000d\u0009\u0000"`, "a\nb\r\t\x00"},
		{"\x1b[31m\x7f", `"\u001b[31m\u007f"`, "\x1b[31m\x7f"},
		{"\u0085\u009b", `"\u0085\u009b"`, "\u0085\u009b"},
		{"a\u202eb\u2028", `"a\u202eb\u2028"`, "a\u202eb\u2028"},
		{"\U000e0001", `"\udb40\udc01"`, "\U000e0001"},
		{"élève 日本 😀", `"élève 日本 😀"`, "élève 日本 😀"},
		{"a\xffb", `"a` + bad + `b"`, "a" + bad + "b"},
		{"\xe2\x82", `"` + bad + bad + `"`, bad + bad},
		{"\xed\xa0\x80", `"` + bad + bad + bad + `"`, bad + bad + bad},
		{bad, `"` + bad + `"`, bad},
	} {
		got := string(appendString([]byte("x"), c.in)[1:])
		if got != c.json {
			t.Errorf("%q: %s, want %s", c.in, got, c.json)
		}
		if same := string(appendString(nil, []byte(c.in))); same != got {
			t.Errorf("%q: %s as bytes, %s as string", c.in, same, got)
		}
		var back string
		if err := json.Unmarshal([]byte(got), &back); err != nil || back != c.back {
			t.Errorf("%q: reads back as %q, %v", c.in, back, err)
		}
	}
}

func TestWallTime(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	calls := 0
	wall, mono := noon, 10*time.Second
	e := &Encoder{clock: func() (time.Time, time.Duration) { calls++; return wall, mono }}
	check := func(at time.Duration, want time.Time, wantCalls int) {
		t.Helper()
		if got := e.wallTime(at); !got.Equal(want) || calls != wantCalls {
			t.Errorf("%v is %v after %d readings, want %v after %d", at, got, calls, want, wantCalls)
		}
	}
	check(10*time.Second, noon, 1)
	check(9500*time.Millisecond, noon.Add(-500*time.Millisecond), 1)
	check(2*time.Second, noon.Add(-8*time.Second), 1) // a backlog reads no clock
	// The clock is set forward an hour between two readings.
	wall, mono = noon.Add(time.Hour+2*time.Second), 12*time.Second
	check(12*time.Second, noon.Add(time.Hour+2*time.Second), 2)
}

func TestAppendDoesNotAllocate(t *testing.T) {
	e, id := NewEncoder(), &identity.Identity{ContainerID: "abc", Runtime: "docker"}
	events := testEvents()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		for i := range events {
			buf = e.Append(buf[:0], &events[i], id)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	e, id := NewEncoder(), &identity.Identity{ContainerID: strings.Repeat("a", 64), Runtime: "docker"}
	ev := testEvents()[0]
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Append(buf[:0], &ev, id)
	}
	b.SetBytes(int64(len(buf)))
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte("sh"), []byte("a\x00b\n"), "\xff\u202e", uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, comm, path []byte, id string, kind, small uint8) {
		ev := event.Event{
			Kind: event.Kind(kind % 8), Class: small, Probe: small, Severity: event.Severity(small), Weight: 1, TGID: 1,
			Comm: comm, Executable: path, Name: path, Arguments: path, Direction: small, Transport: small, ConnectError: small,
			Operation: small, Call: small, Result: small, Gain: small, Action: small,
		}
		line := NewEncoder().Append(nil, &ev, &identity.Identity{ContainerID: id})
		if !utf8.Valid(line) || bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Fatalf("%q is not one line of UTF-8", line)
		}
		if i := strings.IndexFunc(string(line[:len(line)-1]), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("%q does not print at %d", line, i)
		}
		r := decode(t, line)
		if want := strings.ToValidUTF8(string(comm), ""); utf8.Valid(comm) && r.ExecutableName != want {
			t.Fatalf("comm %q reads back as %q", comm, r.ExecutableName)
		}
	})
}
