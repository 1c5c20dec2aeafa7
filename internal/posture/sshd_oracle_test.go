// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// sshdOracle runs sshd -T with a host key of its own.
type sshdOracle struct {
	program, key string
	// defaults are the values without any configuration.
	defaults map[string][]string
}

func newSSHDOracle(t *testing.T) *sshdOracle {
	t.Helper()
	program, err := exec.LookPath("sshd")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/sshd"); err != nil {
			testkit.Missing(t, "sshd is missing: install openssh-server")
		}
	}
	o := &sshdOracle{program: program, key: filepath.Join(t.TempDir(), "key")}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", o.key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	if os.Geteuid() == 0 {
		// Its privilege separation directory.
		must(t, os.MkdirAll("/run/sshd", 0o755))
	}
	empty := filepath.Join(t.TempDir(), "empty")
	must(t, os.WriteFile(empty, nil, 0o600))
	o.defaults = o.run(t, empty)
	return o
}

// run returns the values by lower case keyword, nil if sshd refuses the
// configuration because nobody could log in with it, because of an IPv6
// address with -4, or because a file with a Subsystem is included twice.
func (o *sshdOracle) run(t *testing.T, config string, flags ...string) map[string][]string {
	t.Helper()
	out, err := exec.Command(o.program, append([]string{"-T", "-f", config, "-h", o.key}, flags...)...).CombinedOutput()
	if err != nil && (strings.Contains(string(out), "cannot be satisfied by enabled") ||
		strings.Contains(string(out), "Address family for hostname not supported") || strings.Contains(string(out), "already defined")) {
		return nil
	}
	if err != nil {
		text, _ := os.ReadFile(config)
		t.Fatalf("sshd -T: %v: %s\n%s", err, out, text)
	}
	values := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		values[key] = append(values[key], value)
	}
	return values
}

// compare checks all options and the addresses of a configuration.
func (o *sshdOracle) compare(t *testing.T, name string, c *sshdConfig, want map[string][]string) {
	t.Helper()
	for _, opt := range sshdOptions {
		key := strings.ToLower(opt.name)
		expected, ok := want[key]
		if !ok && len(opt.def) == 0 {
			// Lists without a value are not printed.
			expected = nil
		}
		if got, expected := o.ours(c, opt), oracleForm(opt.name, expected); !slices.Equal(got, expected) {
			t.Errorf("%s: %s is %q, sshd says %q", name, opt.name, got, expected)
		}
	}
	listen := slices.Clone(c.listen())
	slices.Sort(listen)
	if expected := oracleForm("ListenAddress", want["listenaddress"]); !slices.Equal(listen, expected) {
		t.Errorf("%s: it listens on %q, sshd says %q", name, listen, expected)
	}
	var env []string
	for _, l := range c.effective("SetEnv") {
		env = append(env, l.args...)
	}
	if !slices.Equal(env, want["setenv"]) {
		t.Errorf("%s: SetEnv is %q, sshd says %q", name, env, want["setenv"])
	}
}

// ours is the value of an option in the form of oracleForm.
func (o *sshdOracle) ours(c *sshdConfig, opt sshdOption) []string {
	values, set, _ := c.option(opt)
	lines := c.effective(opt.name)
	switch opt.name {
	case "ForceCommand", "AuthorizedKeysCommand":
		if set {
			values = sshdText(lines)
		}
	case "Subsystem":
		values = nil
		for _, l := range lines {
			values = append(values, l.value())
		}
	case "Ciphers", "MACs", "KexAlgorithms", "HostKeyAlgorithms", "PubkeyAcceptedAlgorithms":
		base := strings.Split(o.defaults[strings.ToLower(opt.name)][0], ",")
		values = base
		if set {
			sign, names := sshdAlgorithmList(lines[0].value())
			values = assembleAlgorithms(base, sign, names)
		}
	}
	return oracleForm(opt.name, values)
}

// assembleAlgorithms applies a list with a sign to the built-in one.
func assembleAlgorithms(base []string, sign string, names []string) []string {
	matches := func(s string) bool {
		return slices.ContainsFunc(names, func(p string) bool {
			ok, _ := path.Match(p, s)
			return ok
		})
	}
	switch sign {
	case "+":
		return append(slices.Clone(base), names...)
	case "-":
		return slices.DeleteFunc(slices.Clone(base), matches)
	case "^":
		return append(slices.Clone(names), slices.DeleteFunc(slices.Clone(base), matches)...)
	}
	return names
}

// oracleForm brings the values of sshd -T and ours into one form: one element
// each, sorted, without duplicates, with the names of the manual.
func oracleForm(option string, values []string) []string {
	sep := " "
	switch option {
	case "Ciphers", "MACs", "KexAlgorithms", "HostKeyAlgorithms", "PubkeyAcceptedAlgorithms":
		sep = ","
	case "ForceCommand", "Banner", "ChrootDirectory", "Subsystem", "AuthorizedKeysCommand", "TrustedUserCAKeys", "RevokedKeys":
		sep = "\n"
	}
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, sep) {
			if option == "PermitRootLogin" && part == "without-password" {
				part = "prohibit-password"
			}
			out = append(out, part)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestSSHDOracle(t *testing.T) {
	t.Parallel()
	o := newSSHDOracle(t)
	compared := 0
	for seed := range uint64(80) {
		dir := t.TempDir()
		g := sshdGenerator{t: t, r: rand.New(rand.NewPCG(seed, 3)), dir: dir}
		main := g.file(0, false)
		flags := g.flags()
		want := o.run(t, main, flags...)
		if want == nil {
			continue
		}
		compared++
		start := parseSSHDFlags(flags)
		config, err := readSSHD(t.Context(), hostfs.New(hostfs.Paths{}).Rootfs, main, dir, start.lines)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		o.compare(t, fmt.Sprintf("seed %d (%s %q)", seed, main, flags), config, want)
		if t.Failed() {
			t.Log(treeText(t, dir))
			break
		}
	}
	if compared < 40 {
		t.Errorf("only %d configurations were compared", compared)
	}
}

// sshdGenerator writes configurations that sshd accepts.
type sshdGenerator struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	files int
	names int
}

func (g *sshdGenerator) pick(of ...string) string { return of[g.r.IntN(len(of))] }

// file writes a file with Include and Match, and returns its path.
func (g *sshdGenerator) file(depth int, match bool) string {
	g.files++
	name := filepath.Join(g.dir, fmt.Sprintf("%s%d.conf", g.pick("a", "b", "Z", "0"), g.files))
	var b strings.Builder
	for range 3 + g.r.IntN(12) {
		b.WriteString(g.pick("", "", " ", "\t"))
		switch n := g.r.IntN(20); {
		case n == 0 && depth < 3:
			// The parent's lines after it must not be in its Match block.
			b.WriteString(g.pick("Include ", "include\t", "Include=") + g.file(depth+1, match))
		case n == 1 && depth < 2:
			sub := sshdGenerator{t: g.t, r: g.r, dir: filepath.Join(g.dir, fmt.Sprint("d", g.names)), names: g.names + 1}
			must(g.t, os.MkdirAll(sub.dir, 0o755))
			for range 1 + g.r.IntN(3) {
				sub.file(depth+2, match)
			}
			must(g.t, os.WriteFile(filepath.Join(sub.dir, ".hidden.conf"), []byte("MaxSessions 77\n"), 0o600))
			g.names = sub.names
			b.WriteString("Include " + sub.dir + g.pick("/*.conf", "/[!b]*.conf", "/?*.conf", "/none*"))
		case n <= 3:
			match = true
			b.WriteString(g.pick("Match User bob", "match all", "Match Address 10.0.0.0/8,!10.1.0.0/16 User *,!root", "Match Group wheel # c", "Match all # c"))
		case n == 4:
			b.WriteString(g.pick("# Port 9999", "", "#", "   "))
		default:
			b.WriteString(g.line(match))
		}
		b.WriteString(g.pick("\n", "\n", " \n", "\t\n", "\r\n"))
	}
	must(g.t, os.WriteFile(name, []byte(b.String()), 0o600))
	return name
}

// line is a directive; in a Match block one that is allowed there.
func (g *sshdGenerator) line(match bool) string {
	lines := [][]string{
		{"PermitRootLogin", "yes", "no", "prohibit-password", "without-password", "forced-commands-only"},
		{"PasswordAuthentication", "yes", "no", "YES"}, {"PermitEmptyPasswords", "yes", "no"},
		{"KbdInteractiveAuthentication", "yes", "no"}, {"ChallengeResponseAuthentication", "no", "yes"},
		{"PubkeyAuthentication", "yes", "no"}, {"MaxAuthTries", "3", "4", "0012"}, {"MaxSessions", "1", "20"},
		{"X11Forwarding", "yes", "no"}, {"X11UseLocalhost", "yes", "no"}, {"AllowTcpForwarding", "yes", "no", "local", "remote", "all"},
		{"AllowAgentForwarding", "no", "yes"}, {"AllowStreamLocalForwarding", "no", "all", "local"},
		{"DisableForwarding", "yes", "no"}, {"GatewayPorts", "clientspecified", "yes", "no"},
		{"PermitTunnel", "yes", "no", "ethernet", "point-to-point"}, {"PermitUserRC", "no", "yes"},
		{"ClientAliveInterval", "5m", "300", "1h30m", "0"}, {"ClientAliveCountMax", "0", "5"},
		{"AllowUsers", "alice bob", "carol@10.0.0.0/8", `"dave" er\in`, "alice"}, {"DenyUsers", "eve", "x y"},
		{"AllowGroups", "wheel", "a b"}, {"DenyGroups", "c", "d e"}, {"AcceptEnv", "LANG LC_*", "FOO", "LANG"},
		{"AuthorizedKeysFile", ".ssh/authorized_keys", "a b", "none"},
		{"AuthenticationMethods", "publickey,password keyboard-interactive", "publickey"},
		{"Banner", "/etc/issue.net", "none", `"/a b"`, "'/c d' # x"}, {"ForceCommand", "/bin/true # not a comment", `echo "a  b"`, "none"},
		{"ChrootDirectory", "/srv/%u", "none"}, {"PermitOpen", "any", "a:1 b:2"}, {"PermitListen", "none", "8080"},
		{"SetEnv", "A=1 B=2", "C=3"}, {"LogLevel", "verbose", "DEBUG1", "Info"}, {"HostbasedAuthentication", "yes", "no"},
		{"IgnoreRhosts", "yes", "no", "shosts-only"}, {"TrustedUserCAKeys", "/ca.pub", "none"}, {"AuthorizedPrincipalsFile", "none", "%h/p"},
		{"PubkeyAcceptedAlgorithms", "ssh-ed25519", "+ssh-rsa", "-ecdsa*", "^rsa-sha2-512"}, {"GSSAPIAuthentication", "yes", "no"},
		{"KerberosAuthentication", "yes", "no"},
	}
	if !match {
		lines = append(lines, [][]string{
			{"Port", "22", "2222", "443"}, {"ListenAddress", "127.0.0.1", "127.0.0.2:99", "[::1]:88", "::1", "0.0.0.0"},
			{"LoginGraceTime", "30", "2m", "0", "1m30s"}, {"StrictModes", "yes", "no"}, {"UsePAM", "no", "no"},
			{"TCPKeepAlive", "yes", "no"}, {"KeepAlive", "no"}, {"UseDNS", "no", "yes"}, {"Compression", "delayed", "yes", "no"},
			{"MaxStartups", "5", "20"}, {"SyslogFacility", "authpriv", "LOCAL3"}, {"PermitUserEnvironment", "yes", "no", "LANG,LC_*"},
			{"Ciphers", "aes256-gcm@openssh.com,aes128-ctr", "+3des-cbc,aes128-cbc", "-aes1*", "^aes256-ctr"},
			{"MACs", "hmac-sha2-256", "+hmac-md5", "-umac*,hmac-sha1*", "^hmac-sha2-512"},
			{"KexAlgorithms", "curve25519-sha256", "+diffie-hellman-group1-sha1", "-ecdh*"},
			{"HostKeyAlgorithms", "ssh-ed25519", "-ecdsa*"}, {"Protocol", "2"}, {"UsePrivilegeSeparation", "yes"},
			{"PrintMotd", "no"}, {"Subsystem", "s"}, {"Subsystem", "s"},
		}...)
	}
	l := lines[g.r.IntN(len(lines))]
	value := l[1+g.r.IntN(len(l)-1)]
	if l[0] == "Subsystem" {
		// sshd 9.2 refuses a name that is there already.
		g.names++
		value = fmt.Sprintf("s%d %s", g.names, g.pick("internal-sftp", "/usr/lib/openssh/sftp-server -l INFO -f AUTH"))
	}
	key := g.pick(l[0], strings.ToLower(l[0]), strings.ToUpper(l[0]), `"`+l[0]+`"`)
	if l[0] != "ForceCommand" && g.r.IntN(8) == 0 {
		value += g.pick(" # comment", "\t#x")
	}
	if key[0] == '"' {
		// Only a blank may follow the quotes.
		return key + g.pick(" ", "\t") + value
	}
	return key + g.pick(" ", "  ", "\t", " = ", "=", "= ") + value
}

func (g *sshdGenerator) flags() []string {
	var out []string
	for range g.r.IntN(3) {
		out = append(out, [][]string{
			{"-p", "2200"}, {"-oPort=2201"}, {"-o", "PermitRootLogin no"}, {"-o", "MaxAuthTries=9"}, {"-g", "77"}, {"-4"}, {"-oAllowUsers=flag"},
		}[g.r.IntN(7)]...)
	}
	return out
}
