// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"path"
	"strconv"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/ssh/sshd_config, or /usr/etc/ssh/sshd_config where the
// distribution keeps its own and /etc has none, with all included files
// (sshd_config(5)), and the flags of the daemon in its unit. The values are
// those of sshd -T: what holds for a connection that no Match block singles
// out. The process id file says when the daemon last read them.
const (
	sshdConfigFile   = "/etc/ssh/sshd_config"
	sshdVendorConfig = "/usr/etc/ssh/sshd_config"
	sshdConfigDir    = "/etc/ssh"
	sshdPidFile      = "/run/sshd.pid"
)

type sshd struct {
	info, option, match, newer *metric.Metric
}

func sshdCollector() Spec {
	option := metric.Open("option", "Name as in sshd_config(5).")
	value := metric.Open("value", "Value; of a list one element, of algorithms with the sign +, - or ^ if it changes the built-in list.")
	c := &sshd{
		info: metric.NewLegacy("linux_security_sshd_config_info",
			"Setting of sshd that the configuration or a flag makes, in effect for every connection; always 1.",
			metric.Open("info_key", "Keyword as in sshd_config(5)."),
			metric.Open("info_value", "Value as it is written; of SetEnv the name, of commands the program.")),
		option: metric.NewState("linux_security_sshd_option_info",
			"Setting of sshd in effect for every connection, times in seconds, always 1; absent where nothing sets it and its default is none, any or of little weight.",
			option, value, metric.Closed("source", "file", "flag", "default")),
		match: metric.NewState("linux_security_sshd_match_option_info",
			"Setting of sshd inside a Match block, in effect for some connections; always 1.",
			metric.Open("match", "Condition of the block."), option, value),
		newer: metric.NewState("linux_security_sshd_config_newer_than_daemon",
			"Whether the configuration changed after the running daemon read it."),
	}
	return Spec{
		Name:    "sshd",
		Help:    "Configuration of the OpenSSH server.",
		Metrics: []*metric.Metric{c.info, c.option, c.match, c.newer},
		Watch: []string{
			sshdConfigFile, "/etc/ssh/sshd_config.d/*.conf", sshdVendorConfig, "/usr/etc/ssh/sshd_config.d/*.conf",
			"/etc/default/ssh", "/etc/sysconfig/sshd", "/etc/crypto-policies/back-ends/opensshserver.config", sshdPidFile,
		},
		Collect: c.collect,
	}
}

func (c *sshd) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	config, err := loadSSHD(ctx, in.Rootfs)
	if config == nil {
		return err
	}
	for _, key := range config.keys() {
		for _, l := range config.effective(key) {
			out.Add(c.info, 1, key, sshdShown(l))
		}
	}
	for _, o := range sshdOptions {
		c.add(out, config, o)
	}
	return Partial(errors.Join(err, c.addNewer(ctx, in, config, out)))
}

func (c *sshd) add(out *metric.Batch, config *sshdConfig, o sshdOption) {
	values, set, flag := config.option(o)
	source := "default"
	switch {
	case flag:
		source = "flag"
	case set:
		source = "file"
	}
	for _, v := range values {
		if source != "default" || !o.quiet(v) {
			out.Add(c.option, 1, o.name, v, source)
		}
	}
	for _, l := range config.lines {
		if l.always() || !strings.EqualFold(l.key, o.name) {
			continue
		}
		for _, v := range o.render([]sshdLine{l}) {
			out.Add(c.match, 1, l.match, o.name, v)
		}
	}
}

// addNewer compares the files with the process id file, which sshd writes
// after it has read them, also when SIGHUP makes it start over.
func (c *sshd) addNewer(ctx context.Context, in *Input, config *sshdConfig, out *metric.Batch) error {
	file := sshdPidFile
	if l := config.effective("PidFile"); len(l) > 0 {
		file = l[0].value()
	}
	st, err := in.Rootfs.Stat(ctx, file)
	if err != nil {
		return unlessMissing(err)
	}
	text, err := in.Rootfs.ReadValue(ctx, file)
	if err != nil {
		return unlessMissing(err)
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid <= 0 {
		return nil
	}
	comm, err := in.Procfs.ReadLimit(ctx, "/"+strconv.Itoa(pid)+"/comm", hostfs.ValueLimit)
	if err != nil || string(bytes.TrimSpace(comm)) != "sshd" {
		// It has gone, and its file stayed.
		return nil
	}
	out.Bool(c.newer, config.modTime.After(st.ModTime))
	return nil
}

// loadSSHD reads the configuration that the daemon uses. With an error, it is
// what could be read, nil if there is none.
func loadSSHD(ctx context.Context, root *hostfs.Tree) (*sshdConfig, error) {
	start, errStart := readSSHDStart(ctx, root)
	files := []string{sshdConfigFile, sshdVendorConfig}
	if start.config != "" {
		files = []string{path.Join("/", start.config)}
	}
	var err error
	for _, f := range files {
		var config *sshdConfig
		config, err = readSSHD(ctx, root, f, sshdConfigDir, start.lines)
		if errors.Is(err, hostfs.ErrNotExist) && config == nil {
			continue
		}
		return config, errors.Join(err, errStart)
	}
	return nil, err
}

// sshdShown is the value for sshd_config_info, without what may be secret.
func sshdShown(l sshdLine) string {
	switch l.key {
	case "SetEnv":
		var names []string
		for _, a := range l.args {
			name, _, _ := strings.Cut(a, "=")
			names = append(names, name)
		}
		return strings.Join(names, " ")
	case "ForceCommand", "AuthorizedKeysCommand", "AuthorizedPrincipalsCommand":
		return strings.Join(sshdProgram([]sshdLine{l}), "")
	}
	return l.value()
}
