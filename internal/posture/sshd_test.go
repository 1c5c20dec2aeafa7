// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
)

func TestSSHD(t *testing.T) {
	t.Parallel()
	golden(t, sshdCollector, prepared(func(t *testing.T, name, rootfs string) {
		main := filepath.Join(rootfs, "etc/ssh/sshd_config")
		pid := filepath.Join(rootfs, "run/sshd.pid")
		switch name {
		case "debian12":
			must(t, os.Chtimes(pid, fixtureNow, fixtureNow))
			must(t, os.Chtimes(main, fixtureNow, fixtureNow.Add(time.Minute)))
		case "rhel9":
			files, err := filepath.Glob(filepath.Join(rootfs, "etc/ssh/sshd_config.d/*"))
			must(t, err)
			crypto := filepath.Join(rootfs, "etc/crypto-policies/back-ends/opensshserver.config")
			for _, f := range append(files, main, crypto) {
				must(t, os.Chtimes(f, fixtureNow, fixtureNow.Add(-time.Minute)))
			}
			must(t, os.Chtimes(pid, fixtureNow, fixtureNow))
		case "broken":
			must(t, os.Mkdir(filepath.Join(rootfs, "etc/ssh/sshd_config.d/90-folder.conf"), 0o755))
		}
	}))
}

func TestParseSSHDLine(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]struct {
		key  string
		args []string
		err  error
	}{
		"":                                   {},
		"   # comment":                       {},
		"port 22":                            {"Port", []string{"22"}, nil},
		"\tPort\t22 \f":                      {"Port", []string{"22"}, nil},
		"Port=22":                            {"Port", []string{"22"}, nil},
		"Port = 22":                          {"Port", []string{"22"}, nil},
		"Port == 22":                         {"Port", []string{"=", "22"}, nil},
		`"Port" "22"`:                        {"Port", []string{"22"}, nil},
		`Banner "/a b"`:                      {"Banner", []string{"/a b"}, nil},
		`Banner '/a "b"' # c`:                {"Banner", []string{`/a "b"`}, nil},
		`Banner a#b`:                         {"Banner", []string{"a#b"}, nil},
		`AllowUsers a\ b c\d \"e`:            {"AllowUsers", []string{"a b", `c\d`, `"e`}, nil},
		`AllowUsers ""`:                      {"AllowUsers", []string{""}, nil},
		"Unknown yes":                        {"Unknown", []string{"yes"}, nil},
		"ChallengeResponseAuthentication no": {"KbdInteractiveAuthentication", []string{"no"}, nil},
		"Port":                               {"", nil, errSSHDEmpty},
		"Port =":                             {"", nil, errSSHDEmpty},
		`Port "22`:                           {"", nil, errSSHDQuotes},
		`"Port 22`:                           {"", nil, errSSHDQuotes},
	} {
		got, err := parseSSHDLine(in)
		if got.key != want.key || !slices.Equal(got.args, want.args) || !errors.Is(err, want.err) {
			t.Errorf("%q: %q %q, %v, want %+v", in, got.key, got.args, err, want)
		}
	}
}

func TestParseSSHDFlags(t *testing.T) {
	t.Parallel()
	got := parseSSHDFlags(strings.Fields("-D -4e -p2222 -oPermitRootLogin=no -o X11Forwarding=yes -f /etc/other -g 30 -h /key -o broken -- -p 1"))
	var lines []string
	for _, l := range got.lines {
		lines = append(lines, fmt.Sprintln(l.key, l.args[0], l.flag, l.only))
	}
	want := []string{
		"AddressFamily inet true false\n", "Port 2222 true true\n", "PermitRootLogin no true false\n",
		"X11Forwarding yes true false\n", "LoginGraceTime 30 true false\n", "HostKey /key true false\n",
	}
	if got.config != "/etc/other" || !slices.Equal(lines, want) {
		t.Errorf("%q %q", got.config, lines)
	}
}

func TestExecWords(t *testing.T) {
	t.Parallel()
	env := map[string]string{"OPTS": "-p 22  -e", "DIR": "/etc"}
	for in, want := range map[string][]string{
		"-/usr/sbin/sshd -D $OPTS $NONE": {"/usr/sbin/sshd", "-D", "-p", "22", "-e"},
		`@!!sshd "-f ${DIR}/x" $$`:       {"sshd", "-f /etc/x", "$$"},
		`sshd "open`:                     nil,
		"":                               nil,
	} {
		if got := execWords(in, env); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSSHDTime(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{
		"0": 0, "90": 90, "1m30s": 90, "1h": 3600, "1D2w": 1296000, "1m30": 90, "none": 0,
		"": -1, "x": -1, "1x": -1, "m": -1, "-1": -1, "99999999999999": -1,
	} {
		got, ok := sshdTime(in)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

func TestSSHDListen(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                    {"0.0.0.0:22", "[::]:22"},
		"Port 1\nPort 2\n":    {"0.0.0.0:1", "0.0.0.0:2", "[::]:1", "[::]:2"},
		"AddressFamily inet6": {"[::]:22"},
		"AddressFamily INET":  {"0.0.0.0:22"},
		"ListenAddress ::1\nListenAddress [::2]\nListenAddress [::3]:4\nListenAddress 10.0.0.1:5\nListenAddress host\nPort 7": {
			"[::1]:7", "[::2]:7", "[::3]:4", "10.0.0.1:5", "host:7",
		},
	} {
		lines, err := parseSSHD(strings.NewReader(text), "x")
		must(t, err)
		if got := (&sshdConfig{lines: lines}).listen(); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Files that include each other must end with an error, soon.
func TestSSHDIncludeLoop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "etc/ssh/d"), 0o755))
	for i := range 30 {
		text := fmt.Sprintf("Include d/*\nPort %d\n", i)
		must(t, os.WriteFile(filepath.Join(dir, "etc/ssh/d", fmt.Sprint(i)), []byte(text), 0o644))
	}
	must(t, os.WriteFile(filepath.Join(dir, "etc/ssh/sshd_config"), []byte("Include d/*\nMaxAuthTries 3\n"), 0o644))
	config, err := loadSSHD(t.Context(), hostfs.New(hostfs.Paths{Rootfs: dir}).Rootfs)
	if err == nil || config == nil || config.files > maxSSHDFiles {
		t.Fatalf("%+v, %v", config, err)
	}
	if l := config.effective("MaxAuthTries"); len(l) != 1 || l[0].value() != "3" {
		t.Errorf("%+v", l)
	}
}

func FuzzParseSSHD(f *testing.F) {
	f.Add("Port=22\nMatch User a\n\"Banner\" '/x' # y\nCiphers +a,b\nMaxStartups 5\nLoginGraceTime 1h2m\nListenAddress [::1]:2\n")
	f.Fuzz(func(t *testing.T, s string) {
		lines, _ := parseSSHD(strings.NewReader(s), "x")
		for _, l := range lines {
			if l.key == "" || strings.ContainsAny(l.key, sshdBlank) && !strings.Contains(s, `"`) {
				t.Errorf("%+v from %q", l, s)
			}
			sshdCondition(l.text)
			sshdShown(l)
			execWords(l.text, map[string]string{"a": "b"})
		}
		c := &sshdConfig{lines: lines}
		for _, o := range sshdOptions {
			c.option(o)
		}
		c.listen()
		if again, _ := parseSSHD(strings.NewReader(s), "x"); !reflect.DeepEqual(lines, again) {
			t.Errorf("two results from %q", s)
		}
		parseSSHDFlags(strings.Fields(s))
	})
}
