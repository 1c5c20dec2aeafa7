// SPDX-License-Identifier: Apache-2.0

package config

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// users and TLS of the exporter-toolkit's configuration; the hash is of "a".
const (
	someUsers = "basic_auth_users: {a: $2a$04$p7L5NT4NeEuUWnYF7SYr4.adxmLqdHCdI5dL52HOscvtBo7De1TH.}\n"
	someTLS   = "tls_server_config: {cert: C, key: K}\n"
)

func TestParseEvents(t *testing.T) {
	t.Parallel()
	c := mustParse(t)
	if want := (Events{FileMiB: 100, FileBackups: 3}); c.Events != want {
		t.Errorf("events %+v", c.Events)
	}
	if want := (API{Socket: DefaultAPIAddress}); c.API != want {
		t.Errorf("api %+v", c.API)
	}
	if e := c.EBPF; e.TopCapacity != 100 || e.TopN != 10 || e.TopWindow != 10*time.Minute || e.SampleRateFixed {
		t.Errorf("ebpf %+v", e)
	}
	c = mustParse(t, "--events.output=file:/var/log//x.log", "--events.file-size=1", "--events.file-backups=9", "--events.arguments",
		"--ebpf.sample-rate-fixed", "--ebpf.top-capacity=10", "--ebpf.top-n=0", "--ebpf.top-window=1h30m", "--api.listen-address=")
	if want := (Events{Path: "/var/log/x.log", FileMiB: 1, FileBackups: 9, Arguments: true}); c.Events != want {
		t.Errorf("events %+v", c.Events)
	}
	if want := (API{Explicit: true}); c.API != want {
		t.Errorf("api %+v", c.API)
	}
	if e := c.EBPF; !e.Detailed || e.TopCapacity != 10 || e.TopN != 0 || e.TopWindow != 90*time.Minute || !e.SampleRateFixed {
		t.Errorf("ebpf %+v", e)
	}
	if c = mustParse(t, "--events.output=stdout"); !c.Events.Stdout || c.Events.Path != "" {
		t.Errorf("events %+v", c.Events)
	}
}

func TestAPIAddress(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]API{
		"/run/x.sock":       {Socket: "/run/x.sock"},
		"/run//y/../x":      {Socket: "/run/x"},
		"127.0.0.1:1":       {TCP: "127.0.0.1:1"},
		"127.9.9.9:65535":   {TCP: "127.9.9.9:65535"},
		"[::1]:1":           {TCP: "[::1]:1"},
		"localhost:1":       {TCP: "localhost:1"},
		"[::ffff:7f00:1]:1": {TCP: "[::ffff:7f00:1]:1"},
	} {
		var got API
		if err := got.check(in, ""); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

// An address that others reach needs TLS and somebody who is asked for.
func TestAPIAddressNeedsGuard(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		content string
		ok      bool
	}{
		"empty":        {"", false},
		"users":        {someUsers, false},
		"tls":          {someTLS, false},
		"both":         {someTLS + someUsers, true},
		"no user":      {someTLS + "basic_auth_users: {}\n", false},
		"certificates": {"tls_server_config: {cert_file: c, key_file: k, client_auth_type: RequireAndVerifyClientCert}\n", true},
		"unverified":   {"tls_server_config: {cert_file: c, key_file: k, client_auth_type: RequireAnyClientCert}\n", false},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, addr := range []string{":1", "0.0.0.0:1", "192.0.2.1:1", "[::]:1", "example.com:1"} {
			var a API
			if err := a.check(addr, path); (err == nil) != c.ok {
				t.Errorf("%s with %s: %v", addr, name, err)
			}
		}
	}
}

func TestParseEventsErrors(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("a", maxSocketPath)
	const window = "want a duration in whole seconds from 10s to 24h0m0s, such as 10m"
	for arg, want := range map[string]string{
		"--events.output=syslog":              "want stdout or file:PATH",
		"--events.output=STDOUT":              "want stdout or file:PATH",
		"--events.output=file:":               "want file: and the absolute path of a file",
		"--events.output=file:x":              "want file: and the absolute path of a file",
		"--events.output=file:/tmp/":          "want file: and the absolute path of a file",
		"--events.file-size=0":                "want a whole number from 1 to 10000",
		"--events.file-backups=0":             "want a whole number from 1 to 1000",
		"--ebpf.top-capacity=9":               "want a whole number from 10 to 1000",
		"--ebpf.top-n=101":                    "want a whole number from 0 to 100",
		"--ebpf.top-n=-1":                     "want a whole number from 0 to 100",
		"--ebpf.top-window=1":                 window,
		"--ebpf.top-window=9s":                window,
		"--ebpf.top-window=25h":               window,
		"--ebpf.top-window=90500ms":           window,
		"--api.listen-address=x.sock":         "want the absolute path of a socket, or HOST:PORT",
		"--api.listen-address=@x":             "want the absolute path of a socket, or HOST:PORT",
		"--api.listen-address=/run/":          "want the path of a socket",
		"--api.listen-address=" + long:        "is 108 bytes long; the path of a socket has at most 107",
		"--api.listen-address=[::1]:x":        `port "x" is no number below 65536`,
		"--api.listen-address=:9103":          "is not on loopback, and --web.config.file does not ask for TLS and authentication; want a socket, 127.0.0.1:PORT or [::1]:PORT",
		"--api.listen-address=[fe80::1%lo]:1": "is not on loopback, and --web.config.file does not ask for TLS and authentication; want a socket, 127.0.0.1:PORT or [::1]:PORT",
	} {
		_, err := Parse([]string{arg}, testKnown(), io.Discard)
		if err == nil || err.Error() != arg+": "+want {
			t.Errorf("%s\n got %v\nwant %s", arg, err, want)
		}
	}
}
