// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func testKnown() Known {
	return Known{
		Probes:       []string{"process", "network", "file", "privilege", "kernel"},
		Collectors:   []string{"accounts", "ports", "sshd"},
		OffByDefault: []string{"sshd"},
		PortStates:   []string{"LISTEN", "ESTABLISHED", "CLOSE"},
		Checks:       []string{"sshd_root_login", "sshd_x11"},
		Version:      "the version",
	}
}

func mustParse(t *testing.T, args ...string) *Config {
	t.Helper()
	c, err := Parse(args, testKnown(), io.Discard)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return c
}

func TestParseDefaults(t *testing.T) {
	t.Parallel()
	c := mustParse(t)
	if got := *c.Web.WebListenAddresses; !slices.Equal(got, []string{":9102"}) {
		t.Errorf("listen addresses %q", got)
	}
	if *c.Web.WebConfigFile != "" || *c.Web.WebSystemdSocket {
		t.Errorf("web %q %v", *c.Web.WebConfigFile, *c.Web.WebSystemdSocket)
	}
	if c.TelemetryPath != "/metrics" || c.LogLevel != "info" || c.LogFormat != "logfmt" {
		t.Errorf("%q %q %q", c.TelemetryPath, c.LogLevel, c.LogFormat)
	}
	e := c.EBPF
	if e.Enabled || e.Detailed || e.SampleRate != 1 || e.MaxEventsPerSecond != 5000 || !slices.Equal(e.Probes, testKnown().Probes) {
		t.Errorf("ebpf %+v", e)
	}
	if c.ProcFS != "/proc" || c.SysFS != "/sys" || c.RootFS != "/" || c.GoMetrics {
		t.Errorf("%q %q %q %v", c.ProcFS, c.SysFS, c.RootFS, c.GoMetrics)
	}
	if want := map[string]bool{"accounts": true, "ports": true, "sshd": false}; !maps.Equal(c.Collectors, want) {
		t.Errorf("collectors %v, want %v", c.Collectors, want)
	}
	if !slices.Equal(c.FileRules, DefaultFileRules()) {
		t.Errorf("file rules %v", c.FileRules)
	}
	if want := (Posture{LegacyNames: true, PortStates: []string{"LISTEN"}, ServicesEnabled: true}); !reflect.DeepEqual(c.Posture, want) {
		t.Errorf("posture %+v, want %+v", c.Posture, want)
	}
}

func TestParsePosture(t *testing.T) {
	t.Parallel()
	c := mustParse(t, "--no-collector.legacy-names", "-collector.port-states=CLOSE,LISTEN", "--collector.services-enabled=false",
		"--collector.services-running", "--collector.cron.full-command", "--no-collector.ports", "--collector.sshd")
	want := Posture{PortStates: []string{"LISTEN", "CLOSE"}, ServicesRunning: true, CronFullCommand: true}
	if !reflect.DeepEqual(c.Posture, want) {
		t.Errorf("posture %+v, want %+v", c.Posture, want)
	}
	if want := map[string]bool{"accounts": true, "ports": false, "sshd": true}; !maps.Equal(c.Collectors, want) {
		t.Errorf("collectors %v, want %v", c.Collectors, want)
	}
}

func TestParseSpellings(t *testing.T) {
	t.Parallel()
	enabled := func(c *Config) any { return c.EBPF.Enabled }
	level := func(c *Config) any { return c.LogLevel }
	for _, tc := range []struct {
		args []string
		get  func(*Config) any
		want any
	}{
		{[]string{"-ebpf.enabled"}, enabled, true},
		{[]string{"--ebpf.enabled"}, enabled, true},
		{[]string{"--ebpf.enabled=true"}, enabled, true},
		{[]string{"-ebpf.enabled=true"}, enabled, true},
		{[]string{"--ebpf.enabled=false"}, enabled, false},
		{[]string{"-ebpf.enabled=false"}, enabled, false},
		{[]string{"--no-ebpf.enabled"}, enabled, false},
		{[]string{"-no-ebpf.enabled"}, enabled, false},
		{[]string{"--no-ebpf.enabled=true"}, enabled, false},
		{[]string{"--no-ebpf.enabled=false"}, enabled, true},
		{[]string{"--log.level=debug"}, level, "debug"},
		{[]string{"--log.level", "debug"}, level, "debug"},
		{[]string{"-log.level=warn"}, level, "warn"},
		{[]string{"-log.level", "error"}, level, "error"},
		{[]string{"--log.format", "json"}, func(c *Config) any { return c.LogFormat }, "json"},
		{[]string{"--web.telemetry-path=/a/b.c_d~e-f"}, func(c *Config) any { return c.TelemetryPath }, "/a/b.c_d~e-f"},
		{[]string{"--ebpf.sample-rate=10000"}, func(c *Config) any { return c.EBPF.SampleRate }, uint32(10000)},
		{[]string{"--ebpf.max-events-per-second=1000000"}, func(c *Config) any { return c.EBPF.MaxEventsPerSecond }, 1000000},
		{[]string{"--ebpf.probes=kernel, process"}, func(c *Config) any { return strings.Join(c.EBPF.Probes, "+") }, "process+kernel"},
		{nil, func(c *Config) any { return c.EBPF.HookPolicy }, "auto"},
		{[]string{"--ebpf.hook-policy=kprobe"}, func(c *Config) any { return c.EBPF.HookPolicy }, "kprobe"},
		{[]string{"--ebpf.detailed"}, func(c *Config) any { return c.EBPF.Detailed }, true},
		{[]string{"--path.procfs=/proc//self/"}, func(c *Config) any { return c.ProcFS }, "/proc/self"},
		{[]string{"--path.rootfs", "/tmp/"}, func(c *Config) any { return c.RootFS }, "/tmp"},
		{[]string{"--no-harden"}, func(c *Config) any { return c.Harden }, false},
		{nil, func(c *Config) any { return c.Harden }, true},
		{[]string{"--collector.go-metrics"}, func(c *Config) any { return c.GoMetrics }, true},
		{[]string{"--no-collector.ports"}, func(c *Config) any { return c.Collectors["ports"] }, false},
		{[]string{"--collector.ports=false"}, func(c *Config) any { return c.Collectors["ports"] }, false},
		{[]string{"-collector.sshd"}, func(c *Config) any { return c.Collectors["sshd"] }, true},
		{[]string{"--web.systemd-socket"}, func(c *Config) any { return *c.Web.WebSystemdSocket }, true},
		{[]string{"--web.listen-address=:1", "-web.listen-address", "[::1]:2", "--web.listen-address=vsock://:3"}, func(c *Config) any {
			return strings.Join(*c.Web.WebListenAddresses, " ")
		}, ":1 [::1]:2 vsock://:3"},
	} {
		if got := tc.get(mustParse(t, tc.args...)); got != tc.want {
			t.Errorf("%q: got %v, want %v", tc.args, got, tc.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "")
	badConfig := write("bad.yml", "file_acces:\n")
	badWeb := write("web.yml", "basic_auth_users: {a: plain}\n")
	const (
		number   = "want a whole number from 1 to 10000"
		addr     = "want HOST:PORT, :PORT or vsock://:PORT"
		urlShape = "want a path such as /metrics: letters, digits and . _ ~ - between slashes, none at the end"
		taken    = "is taken by the server itself; choose another, such as /metrics"
		probes   = "want process, network, file, privilege, kernel"
	)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"x"}, `unexpected argument "x": only flags are allowed, see --help`},
		{[]string{"--ebpf.enabled", "true"}, `unexpected argument "true": only flags are allowed, see --help`},
		{[]string{"@/etc/passwd"}, `unexpected argument "@/etc/passwd": only flags are allowed, see --help`},
		{[]string{"--", "x"}, `unexpected argument "--": only flags are allowed, see --help`},
		{[]string{"-"}, `unexpected argument "-": only flags are allowed, see --help`},
		{[]string{""}, `unexpected argument "": only flags are allowed, see --help`},
		{[]string{"a\nb\x1b"}, `unexpected argument "a\nb\x1b": only flags are allowed, see --help`},
		{[]string{"--nope"}, "unknown flag --nope, see --help"},
		{[]string{"--no\npe"}, `unknown flag --"no\npe", see --help`},
		{[]string{"---log.level=info"}, "unknown flag ---log.level, see --help"},
		{[]string{"--no-log.level"}, "unknown flag --no-log.level, see --help"},
		{[]string{"--collector.nope"}, "unknown flag --collector.nope, see --help"},
		{[]string{"--log.level"}, "--log.level needs a value"},
		{[]string{"--log.level", "--ebpf.enabled"}, "--log.level needs a value"},
		{[]string{"--log.level", "-no-ebpf.enabled"}, "--log.level needs a value"},
		{[]string{"--ebpf.enabled=yes"}, "--ebpf.enabled=yes: want true or false"},
		{[]string{"--ebpf.enabled="}, "--ebpf.enabled=: want true or false"},
		{[]string{"--no-ebpf.enabled=1"}, "--no-ebpf.enabled=1: want true or false"},
		{[]string{"--log.level=info", "--log.level=warn"}, "flag 'log.level' cannot be repeated"},
		{[]string{"--log.level=loud"}, "--log.level=loud: want debug, info, warn, error"},
		{[]string{"--log.level=INFO"}, "--log.level=INFO: want debug, info, warn, error"},
		{[]string{"--log.level="}, "--log.level=: want debug, info, warn, error"},
		{[]string{"--log.level=\x1b[31m\n"}, `--log.level="\x1b[31m\n": want debug, info, warn, error`},
		{[]string{"--log.format=xml"}, "--log.format=xml: want logfmt, json"},
		{[]string{"--ebpf.sample-rate=0"}, "--ebpf.sample-rate=0: " + number},
		{[]string{"--ebpf.sample-rate=10001"}, "--ebpf.sample-rate=10001: " + number},
		{[]string{"--ebpf.sample-rate", "-1"}, "--ebpf.sample-rate=-1: " + number},
		{[]string{"--ebpf.sample-rate=1.5"}, "--ebpf.sample-rate=1.5: " + number},
		{[]string{"--ebpf.sample-rate=4294967297"}, "--ebpf.sample-rate=4294967297: " + number},
		{[]string{"--ebpf.sample-rate="}, "--ebpf.sample-rate=: " + number},
		{[]string{"--ebpf.max-events-per-second=0"}, "--ebpf.max-events-per-second=0: want a whole number from 1 to 1000000"},
		{[]string{"--ebpf.max-events-per-second=1e3"}, "--ebpf.max-events-per-second=1e3: want a whole number from 1 to 1000000"},
		{[]string{"--ebpf.hook-policy=best"}, "--ebpf.hook-policy=best: want auto, fentry, kprobe, tracepoint"},
		{[]string{"--ebpf.probes="}, `--ebpf.probes=: unknown probe "", ` + probes},
		{[]string{"--ebpf.probes=process,"}, `--ebpf.probes=process,: unknown probe "", ` + probes},
		{[]string{"--ebpf.probes=process,disk"}, `--ebpf.probes=process,disk: unknown probe "disk", ` + probes},
		{[]string{"--ebpf.probes=file,file"}, "--ebpf.probes=file,file: probe file comes twice"},
		{[]string{"--collector.port-states="}, `--collector.port-states=: unknown state "", want LISTEN, ESTABLISHED, CLOSE`},
		{[]string{"--collector.port-states=listen"}, `--collector.port-states=listen: unknown state "listen", want LISTEN, ESTABLISHED, CLOSE`},
		{[]string{"--collector.port-states=CLOSE,CLOSE"}, "--collector.port-states=CLOSE,CLOSE: state CLOSE comes twice"},
		{[]string{"--collector.services-enabled=maybe"}, "--collector.services-enabled=maybe: want true or false"},
		{[]string{"--web.listen-address=9102"}, "--web.listen-address=9102: " + addr},
		{[]string{"--web.listen-address="}, "--web.listen-address=: " + addr},
		{[]string{"--web.listen-address=::1:80"}, "--web.listen-address=::1:80: " + addr},
		{[]string{"--web.listen-address=:65536"}, `--web.listen-address=:65536: port "65536" is no number below 65536; ` + addr},
		{[]string{"--web.listen-address=:http"}, `--web.listen-address=:http: port "http" is no number below 65536; ` + addr},
		{[]string{"--web.listen-address=:1", "--web.listen-address=x"}, "--web.listen-address=x: " + addr},
		{[]string{"--web.telemetry-path=/"}, "--web.telemetry-path=/: " + taken},
		{[]string{"--web.telemetry-path=/healthz"}, "--web.telemetry-path=/healthz: " + taken},
		{[]string{"--web.telemetry-path=/readyz"}, "--web.telemetry-path=/readyz: " + taken},
		{[]string{"--web.telemetry-path=metrics"}, "--web.telemetry-path=metrics: " + urlShape},
		{[]string{"--web.telemetry-path="}, "--web.telemetry-path=: " + urlShape},
		{[]string{"--web.telemetry-path=/metrics/"}, "--web.telemetry-path=/metrics/: " + urlShape},
		{[]string{"--web.telemetry-path=/a/../b"}, "--web.telemetry-path=/a/../b: " + urlShape},
		{[]string{"--web.telemetry-path=/./healthz"}, "--web.telemetry-path=/./healthz: " + urlShape},
		{[]string{"--web.telemetry-path=/{x}"}, "--web.telemetry-path=/{x}: " + urlShape},
		{[]string{"--web.telemetry-path=/a?b"}, "--web.telemetry-path=/a?b: " + urlShape},
		{[]string{"--path.procfs=proc"}, "--path.procfs=proc: want an absolute path"},
		{[]string{"--path.procfs="}, "--path.procfs=: want an absolute path"},
		{[]string{"--path.sysfs=/nope"}, "--path.sysfs=/nope: no such file or directory; want an existing directory"},
		{[]string{"--path.rootfs=" + plain}, "--path.rootfs=" + plain + ": want a directory"},
		{[]string{"--config.file=" + badConfig}, "--config.file: " + badConfig + `:1: unknown key "file_acces"; want file_access, checks, sysctl, collectors`},
		{[]string{"--config.file=/nope/x.yml"}, "--config.file: open /nope/x.yml: no such file or directory"},
		{[]string{"--web.config.file=/nope/x.yml"}, "--web.config.file=/nope/x.yml: open /nope/x.yml: no such file or directory (see the exporter-toolkit's web configuration)"},
		{[]string{"--web.config.file=" + badWeb}, "--web.config.file=" + badWeb + ": crypto/bcrypt: hashedSecret too short to be a bcrypted password (see the exporter-toolkit's web configuration)"},
	} {
		var out strings.Builder
		got, err := Parse(c.args, testKnown(), &out)
		if err == nil || err.Error() != c.want {
			t.Errorf("%q\n got %v\nwant %s", c.args, err, c.want)
		}
		if got != nil || out.Len() > 0 {
			t.Errorf("%q: config %v, output %q", c.args, got, out.String())
		}
	}
}

func TestParsePrints(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--version": "the version\n", "-version": "the version\n", "--version=true": "the version\n",
		"--help": "usage: security-exporter", "-help": "usage: security-exporter", "-h": "usage: security-exporter",
	} {
		var out strings.Builder
		if _, err := Parse([]string{arg}, testKnown(), &out); !errors.Is(err, ErrPrinted) {
			t.Errorf("%s: error %v", arg, err)
		}
		if !strings.HasPrefix(out.String(), want) || arg == "--version" && out.String() != want {
			t.Errorf("%s printed %q", arg, out.String())
		}
	}
}

func TestParseConfigFile(t *testing.T) {
	t.Parallel()
	c := mustParse(t, "--config.file=../../docs/config.example.yml")
	if !slices.Contains(c.FileRules, FileRule{"/etc/krb5.keytab", SeverityCritical, SeverityCritical}) {
		t.Errorf("file rules %v", c.FileRules)
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := mustParse(t, "--log.level=warn", "--log.format=json").Logger(&out)
	log.Info("quiet")
	log.Log(t.Context(), slog.LevelWarn, "loud", "path", "/x")
	if s := out.String(); strings.Contains(s, "quiet") || !strings.Contains(s, `"msg":"loud","path":"/x"}`) {
		t.Errorf("logged %q", s)
	}
}

func TestWriteFlags(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := WriteFlags(&b, testKnown()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `--log.level` | `info` | Least severe messages to log: debug, info, warn or error. |\n",
		"| `--collector.sshd` | `false` | Run the sshd collector. |\n",
		"| `--collector.ports` | `true` | Run the ports collector. |\n",
		"| `--ebpf.enabled` | `false` | Count security events in the kernel with eBPF. |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no line %q", want)
		}
	}
	if strings.Contains(b.String(), "completion") {
		t.Error("hidden flags are shown")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("--log.level", "debug")
	f.Add("-ebpf.enabled=false", "@/etc/passwd")
	f.Add("--no-version", "\x00\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		// Files are another test's subject.
		if strings.Contains(a+b, "config.file") || strings.Contains(a+b, "path.") {
			return
		}
		c, err := Parse([]string{a, b}, testKnown(), io.Discard)
		if err == nil && c == nil || err != nil && c != nil {
			t.Errorf("%q %q: %v and %v", a, b, c, err)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\r\x1b\x00") {
			t.Errorf("%q %q: %q is not one clean line", a, b, err)
		}
	})
}
