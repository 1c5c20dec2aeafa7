// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"net"
	"slices"
	"strconv"
	"strings"
)

// sshdOption is one row of sshd_option_info.
type sshdOption struct {
	name string
	// def is the built-in value of OpenSSH 9.2 to 10.0 in the form of render;
	// empty where it depends on the version or where there is none.
	def []string
	// render turns the effective lines into values in one form, so that equal
	// settings look equal.
	render func(lines []sshdLine) []string
}

// sshdOptions are the options that bear on security, with their defaults.
var sshdOptions = func() []sshdOption {
	var out []sshdOption
	add := func(render func([]sshdLine) []string, rows ...[]string) {
		for _, r := range rows {
			out = append(out, sshdOption{r[0], r[1:], render})
		}
	}
	add(sshdWords, []string{"Port", "22"}, []string{"AcceptEnv"}, []string{"AllowUsers"}, []string{"AllowGroups"},
		[]string{"DenyUsers"}, []string{"DenyGroups"}, []string{"PermitOpen", "any"},
		[]string{"AuthorizedKeysFile", ".ssh/authorized_keys", ".ssh/authorized_keys2"},
		[]string{"AuthenticationMethods", "any"})
	add(sshdListeners, []string{"PermitListen", "any"})
	add(sshdLower,
		[]string{"AddressFamily", "any"}, []string{"PermitRootLogin", "prohibit-password"},
		[]string{"PasswordAuthentication", "yes"}, []string{"PermitEmptyPasswords", "no"},
		[]string{"KbdInteractiveAuthentication", "yes"}, []string{"PubkeyAuthentication", "yes"},
		[]string{"HostbasedAuthentication", "no"}, []string{"IgnoreRhosts", "yes"},
		[]string{"GSSAPIAuthentication", "no"}, []string{"KerberosAuthentication", "no"}, []string{"UsePAM", "no"},
		[]string{"X11Forwarding", "no"}, []string{"X11UseLocalhost", "yes"}, []string{"AllowTcpForwarding", "yes"},
		[]string{"AllowAgentForwarding", "yes"}, []string{"AllowStreamLocalForwarding", "yes"},
		[]string{"DisableForwarding", "no"}, []string{"GatewayPorts", "no"}, []string{"PermitTunnel", "no"},
		[]string{"PermitUserRC", "yes"}, []string{"StrictModes", "yes"}, []string{"TCPKeepAlive", "yes"},
		[]string{"UseDNS", "no"}, []string{"Compression", "yes"})
	add(sshdNumber, []string{"MaxAuthTries", "6"}, []string{"MaxSessions", "10"}, []string{"ClientAliveCountMax", "3"})
	add(sshdSeconds, []string{"LoginGraceTime", "120"}, []string{"ClientAliveInterval", "0"})
	add(sshdUpper, []string{"LogLevel", "INFO"}, []string{"SyslogFacility", "AUTH"})
	add(sshdText, []string{"Banner", "none"}, []string{"ChrootDirectory", "none"}, []string{"PermitUserEnvironment", "no"},
		[]string{"AuthorizedPrincipalsFile", "none"}, []string{"TrustedUserCAKeys", "none"}, []string{"RevokedKeys", "none"})
	add(sshdProgram, []string{"ForceCommand", "none"}, []string{"AuthorizedKeysCommand", "none"})
	add(sshdSubsystem, []string{"Subsystem"})
	add(sshdStartups, []string{"MaxStartups", "10:30:100"})
	add(sshdAlgorithms, []string{"Ciphers"}, []string{"MACs"}, []string{"KexAlgorithms"}, []string{"HostKeyAlgorithms"},
		[]string{"PubkeyAcceptedAlgorithms"})
	return out
}()

// sshdMinor are the options whose default is no news.
var sshdMinor = []string{"X11UseLocalhost", "Compression", "TCPKeepAlive", "UseDNS", "SyslogFacility", "MaxSessions", "MaxStartups", "PermitUserRC"}

// quiet is whether a built-in value is not worth a series.
func (o sshdOption) quiet(value string) bool {
	return value == "none" || value == "any" || slices.Contains(sshdMinor, o.name)
}

// option returns the values of one option and whether it is set at all.
func (c *sshdConfig) option(o sshdOption) (values []string, set, flag bool) {
	lines := c.effective(o.name)
	if len(lines) == 0 {
		return o.def, false, false
	}
	return o.render(lines), true, lines[0].flag
}

// listen returns the addresses with port that sshd binds, as ListenAddress and
// Port together say. Names are not resolved.
func (c *sshdConfig) listen() []string {
	ports := sshdWords(c.effective("Port"))
	if len(ports) == 0 {
		ports = []string{"22"}
	}
	var out []string
	bind := func(host, port string) {
		with := ports
		if port != "" {
			with = []string{port}
		}
		for _, p := range with {
			if a := net.JoinHostPort(host, p); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	lines := c.effective("ListenAddress")
	for _, l := range lines {
		if len(l.args) > 0 {
			bind(sshdHostPort(l.args[0]))
		}
	}
	if len(lines) == 0 {
		family := strings.ToLower(strings.Join(sshdWords(c.effective("AddressFamily")), ""))
		if family != "inet6" {
			bind("0.0.0.0", "")
		}
		if family != "inet" {
			bind("::", "")
		}
	}
	return out
}

// sshdHostPort splits the forms of ListenAddress: host, host:port, a bare IPv6
// address, [address] and [address]:port.
func sshdHostPort(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		return h, p
	}
	return strings.Trim(s, "[]"), ""
}

// sshdWords are all arguments, one value each.
func sshdWords(lines []sshdLine) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.args...)
	}
	return out
}

// sshdListeners are the addresses of PermitListen; a bare port is any address.
func sshdListeners(lines []sshdLine) []string {
	out := sshdWords(lines[:1])
	for i, v := range out {
		if _, err := strconv.ParseUint(v, 10, 16); err == nil {
			out[i] = "*:" + v
		}
	}
	return out
}

func sshdText(lines []sshdLine) []string { return []string{lines[0].value()} }

// sshdProgram is the command without its arguments, which may be secret.
func sshdProgram(lines []sshdLine) []string {
	return []string{strings.Join(lines[0].args[:min(1, len(lines[0].args))], "")}
}

// sshdSubsystem is the name of each subsystem with its program.
func sshdSubsystem(lines []sshdLine) []string {
	var out []string
	for _, l := range lines {
		out = append(out, strings.Join(l.args[:min(2, len(l.args))], " "))
	}
	return out
}

func sshdUpper(lines []sshdLine) []string {
	v := strings.ToUpper(lines[0].value())
	if v == "DEBUG1" {
		v = "DEBUG"
	}
	return []string{v}
}

// sshdSynonyms are the values that mean the same as another.
var sshdSynonyms = map[string]string{
	"PermitRootLogin/without-password": "prohibit-password",
	"Compression/delayed":              "yes",
	"AllowTcpForwarding/all":           "yes",
	"AllowStreamLocalForwarding/all":   "yes",
}

// sshdLower is a word in lower case and, of those that mean the same, the one
// of the manual.
func sshdLower(lines []sshdLine) []string {
	v := strings.ToLower(lines[0].value())
	if same, ok := sshdSynonyms[lines[0].key+"/"+v]; ok {
		v = same
	}
	return []string{v}
}

func sshdNumber(lines []sshdLine) []string {
	v := lines[0].value()
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		v = strconv.FormatInt(n, 10)
	}
	return []string{v}
}

func sshdSeconds(lines []sshdLine) []string {
	v := lines[0].value()
	if n, ok := sshdTime(v); ok {
		v = strconv.FormatInt(n, 10)
	}
	return []string{v}
}

// sshdTime reads the time format of sshd_config(5), such as 1h30m, in seconds.
func sshdTime(s string) (int64, bool) {
	if s == "none" {
		return 0, true
	}
	var total, n int64
	digits := false
	for _, c := range []byte(s) {
		unit := int64(0)
		switch c {
		case 's', 'S':
			unit = 1
		case 'm', 'M':
			unit = 60
		case 'h', 'H':
			unit = 60 * 60
		case 'd', 'D':
			unit = 24 * 60 * 60
		case 'w', 'W':
			unit = 7 * 24 * 60 * 60
		}
		switch {
		case c >= '0' && c <= '9' && n < 1<<31:
			n = n*10 + int64(c-'0')
			digits = true
		case unit > 0 && digits:
			total += n * unit
			n, digits = 0, false
		default:
			return 0, false
		}
	}
	total += n
	return total, s != "" && total < 1<<31
}

// sshdStartups is start:rate:full of MaxStartups; a single number is both ends
// with the built-in rate.
func sshdStartups(lines []sshdLine) []string {
	v := lines[0].value()
	if _, err := strconv.Atoi(v); err == nil {
		v += ":30:" + v
	}
	return []string{v}
}

// sshdAlgorithms are the names of a list, one value each. A list that only
// changes the built-in one begins with +, - or ^ (to the front); then each name
// has that sign, because the built-in one depends on the version.
func sshdAlgorithms(lines []sshdLine) []string {
	sign, names := sshdAlgorithmList(lines[0].value())
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, sign+n)
	}
	return out
}

// sshdAlgorithmList splits a list into its sign and its names.
func sshdAlgorithmList(value string) (sign string, names []string) {
	if value != "" && strings.Contains("+-^", value[:1]) {
		sign, value = value[:1], value[1:]
	}
	return sign, slices.DeleteFunc(strings.Split(value, ","), func(s string) bool { return s == "" })
}
