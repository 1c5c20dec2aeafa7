// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// status is what /proc/PID/status says of privileges (proc(5)).
type status struct {
	effective, permitted, inheritable, ambient, bounding uint64
	noNewPrivs, seccomp                                  bool
}

func readStatus(path string) (status, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return status{}, fmt.Errorf("read own status: %w", err)
	}
	return parseStatus(bytes.NewReader(data))
}

func parseStatus(r io.Reader) (status, error) {
	var s status
	sets := map[string]*uint64{
		"CapEff": &s.effective, "CapPrm": &s.permitted, "CapInh": &s.inheritable,
		"CapAmb": &s.ambient, "CapBnd": &s.bounding,
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		if set := sets[key]; set != nil {
			v, err := strconv.ParseUint(value, 16, 64)
			if err != nil {
				return status{}, fmt.Errorf("own status: %s: %w", key, err)
			}
			*set = v
			delete(sets, key)
		}
		switch key {
		case "NoNewPrivs":
			s.noNewPrivs = value == "1"
		case "Seccomp":
			s.seccomp = value == "2"
		}
	}
	if len(sets) != 0 {
		return status{}, fmt.Errorf("own status: %d of the capability sets are missing", len(sets))
	}
	return s, lines.Err()
}

func lastCapability(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the last capability: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || n < 0 || n > 63 {
		return 0, fmt.Errorf("%s: %q is no capability", path, data)
	}
	return n, nil
}

// capabilityNames are those that the exporter may have a use for.
var capabilityNames = map[int]string{
	unix.CAP_DAC_READ_SEARCH: "dac_read_search", unix.CAP_SYS_PTRACE: "sys_ptrace", unix.CAP_NET_ADMIN: "net_admin",
	unix.CAP_AUDIT_CONTROL: "audit_control", unix.CAP_BPF: "bpf", unix.CAP_PERFMON: "perfmon", unix.CAP_SYS_ADMIN: "sys_admin",
}

// capabilityText names the set; one with others in it is the number that
// /proc/PID/status shows.
func capabilityText(set uint64) string {
	var names []string
	for c := range 64 {
		if set&(1<<c) == 0 {
			continue
		}
		name, ok := capabilityNames[c]
		if !ok {
			return fmt.Sprintf("%016x", set)
		}
		names = append(names, name)
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, " ")
}
