// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

func TestSysctl(t *testing.T) {
	t.Parallel()
	golden(t, sysctlCollector, withSettings(Settings{Sysctl: map[string]string{
		"kernel.sysrq":                    "176",
		"kernel.kptr_restrict":            "",
		"net/ipv4/ip_local_port_range":    "32768  60999",
		"net.ipv4.conf.eth0/7.arp_notify": "0",
		"kernel.missing":                  "1",
	}}))
}

func TestSysctlName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"kernel.sysrq":                        {"kernel.sysrq", "kernel/sysrq"},
		"kernel/sysrq":                        {"kernel.sysrq", "kernel/sysrq"},
		"net.ipv4.conf.enp3s0/200.forwarding": {"net.ipv4.conf.enp3s0/200.forwarding", "net/ipv4/conf/enp3s0.200/forwarding"},
		"net/ipv4/conf/enp3s0.200/forwarding": {"net.ipv4.conf.enp3s0/200.forwarding", "net/ipv4/conf/enp3s0.200/forwarding"},
		"plain":                               {"plain", "plain"},
		"kernel/../../1/environ":              {"kernel.//.//.1.environ", ""},
		"kernel..sysrq":                       {"kernel..sysrq", ""},
		"":                                    {"", ""},
	} {
		name := sysctlName(in)
		file, ok := sysctlPath(name)
		if !ok {
			file = ""
		}
		if name != want[0] || file != want[1] {
			t.Errorf("%q: %q, %q, want %q", in, name, file, want)
		}
	}
}

func TestConfiguredSysctl(t *testing.T) {
	t.Parallel()
	settings, err := parseSysctlFile(strings.NewReader(`
# comment
; comment
kernel.sysrq = 1
kernel/sysrq=0
-kernel.dmesg_restrict =  1
net.ipv4.conf.*.rp_filter = 2
net.ipv4.conf.default.rp_filter = 1
net.ipv4.conf.*.rp_filter = 0
-net.ipv4.conf.all.rp_filter
net.ipv4.ip_local_port_range = 1024	65000
kernel.no_sign
= 3
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"kernel.sysrq": "0", "kernel.dmesg_restrict": "1", "net.ipv4.conf.eth0.rp_filter": "0",
		"net.ipv4.conf.default.rp_filter": "1", "net.ipv4.conf.all.rp_filter": "none",
		"net.ipv4.ip_local_port_range": "1024 65000", "kernel.no_sign": "none", "kernel.other": "none",
	} {
		got, ok := configuredSysctl(settings, name)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func FuzzParseSysctlFile(f *testing.F) {
	f.Add("kernel.sysrq = 1\n-a.b\nnet/ipv4/conf/*/rp_filter=2\n[")
	f.Fuzz(func(t *testing.T, s string) {
		settings, _ := parseSysctlFile(strings.NewReader(s))
		for _, line := range settings {
			if line.name == "" {
				t.Errorf("a line without a name from %q", s)
			}
			configuredSysctl(settings, line.name)
		}
	})
}

// sysctl(8) and systemd-sysctl(8) apply the same files, in a mount namespace
// where /proc/sys is a folder of plain files: --dry-run of procps 4.0.2 sets
// the values of the host all the same.
func TestSysctlOracle(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	for _, oracle := range [][]string{{"sysctl", "--system"}, {"/lib/systemd/systemd-sysctl"}} {
		t.Run(filepath.Base(oracle[0]), func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(oracle[0]); err != nil {
				testkit.Missing(t, "%s is missing: install procps and systemd", oracle[0])
			}
			for seed := range uint64(30) {
				compareWithOracle(t, oracle, seed)
			}
		})
	}
}

func compareWithOracle(t *testing.T, oracle []string, seed uint64) {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 1))
	generateSysctlFiles(t, dir, r)
	if oracle[0] != "sysctl" {
		// Only sysctl(8) reads this file by itself.
		must(t, os.Symlink("../sysctl.conf", filepath.Join(dir, "etc/sysctl.d/zz.conf")))
	}
	settings, err := readSysctlFiles(t.Context(), hostfs.New(hostfs.Paths{Rootfs: dir}).Rootfs)
	if err != nil {
		t.Fatal(err)
	}
	want := applySysctl(t, dir, oracle)
	for _, name := range oracleNames {
		got, ok := configuredSysctl(settings, name)
		if !ok {
			got = unset
		}
		if got != want[name] {
			t.Errorf("seed %d: %s: %s, the oracle says %s", seed, name, got, want[name])
		}
	}
}

// unset is one byte, which any value overwrites: systemd-sysctl(8) does not
// truncate.
const unset = "-"

var oracleNames = []string{
	"kernel.sysrq", "kernel.dmesg_restrict", "fs.suid_dumpable", "net.ipv4.conf.all.rp_filter",
	"net.ipv4.conf.default.rp_filter", "net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.eth0/7.rp_filter",
}

func generateSysctlFiles(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	for _, d := range sysctlDirs[:4] {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	must(t, os.Symlink("usr/lib", filepath.Join(dir, "lib")))
	n := 0
	write := func(file string) {
		var b bytes.Buffer
		for range r.IntN(6) {
			// No value twice: a line that repeats an earlier one counts at its
			// earlier place for systemd-sysctl(8), at its own for sysctl(8).
			n++
			name := pick(append(oracleNames, "net.ipv4.conf.*.rp_filter", "net.ipv4.conf.eth*.rp_filter")...)
			if r.IntN(3) == 0 {
				name = swapSeparators(name)
			}
			fmt.Fprintf(&b, "%s%s%s=%s%d%s\n", pick("", "  ", "\t", "-", "#", ";"), name, pick("", " ", "\t "), pick("", " "), n, pick("", " "))
		}
		put(t, filepath.Join(dir, file), b.String())
	}
	for _, d := range sysctlDirs[:4] {
		for _, name := range []string{"10-a.conf", "50-b.conf", "99-c.conf", "readme.txt"} {
			switch r.IntN(5) {
			case 0, 1:
				write(d + "/" + name)
			case 2:
				if r.IntN(3) == 0 {
					must(t, os.Symlink("/dev/null", filepath.Join(dir, d, name)))
				}
			}
		}
	}
	write(sysctlConf)
}

// applySysctl returns what each parameter has after the oracle has run on the
// files below dir.
func applySysctl(t *testing.T, dir string, oracle []string) map[string]string {
	t.Helper()
	for _, name := range oracleNames {
		file, _ := sysctlPath(name)
		must(t, os.MkdirAll(filepath.Join(dir, "proc/sys", filepath.Dir(file)), 0o755))
		put(t, filepath.Join(dir, "proc/sys", file), unset)
	}
	const script = `set -e
mount --bind "$0/proc/sys" /proc/sys
mount -t tmpfs none /run
mount -t tmpfs none /usr/local/lib
mkdir /run/sysctl.d /usr/local/lib/sysctl.d
for d in run/sysctl.d usr/local/lib/sysctl.d usr/lib/sysctl.d etc/sysctl.d etc/sysctl.conf; do
	mount --bind "$0/$d" /$d
done
[ /lib -ef /usr/lib ] || mount --bind "$0/usr/lib/sysctl.d" /lib/sysctl.d
exec "$@"`
	cmd := exec.Command("sh", append([]string{"-c", script, dir}, oracle...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", oracle, err, out)
	}
	values := make(map[string]string)
	for _, name := range oracleNames {
		file, _ := sysctlPath(name)
		b, err := os.ReadFile(filepath.Join(dir, "proc/sys", file))
		must(t, err)
		values[name] = sysctlValue(string(b))
	}
	return values
}

func TestInterfaceSettings(t *testing.T) {
	t.Parallel()
	byName := make(map[string]interfaceSetting)
	for _, s := range interfaceSettings() {
		byName[s.name] = s
	}
	for _, c := range []struct {
		name     string
		all, one int64
		forwards bool
		good     bool
	}{
		{"ipv4_accept_redirects", 0, 1, false, false},
		{"ipv4_accept_redirects", 0, 1, true, true},
		{"ipv4_accept_redirects", 0, 0, false, true},
		{"ipv4_send_redirects", 1, 0, false, false},
		{"ipv4_accept_source_route", 0, 1, false, true},
		{"ipv4_accept_source_route", 1, 1, false, false},
		{"ipv4_rp_filter", 0, 2, false, true},
		{"ipv4_rp_filter", 0, 0, false, false},
		{"ipv6_accept_ra", 0, 1, false, false},
		{"ipv6_accept_ra", 1, 0, false, true},
		{"ipv6_accept_source_route", -1, 0, false, true},
		{"ipv4_forwarding", 0, 1, true, false},
		{"ipv6_force_forwarding", 1, 0, false, true},
	} {
		s := byName[c.name]
		if got := s.good(s.combine(c.all, c.one, c.forwards)); got != c.good {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if names := interfaceSettingNames(); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Error("two settings have one name")
	}
}
