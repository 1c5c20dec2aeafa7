// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"

	"security-exporter/internal/bpf/abi"
)

// Severity is how much an event matters. They are ordered.
type Severity uint8

// The severities.
const (
	Info Severity = iota
	Warning
	Critical
)

var severities = [...]string{Info: "info", Warning: "warning", Critical: "critical"}

// String is "info", "warning" or "critical".
func (s Severity) String() string { return nameOf(severities[:], uint8(s)) }

// ParseSeverity is the reverse of String.
func ParseSeverity(name string) (Severity, error) {
	for i, known := range severities {
		if known == name {
			return Severity(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no severity: use one of %v", name, severities)
}

// ofFile is the severity of a rule, which the border contract counts from the
// gravest down.
func ofFile(severity uint8) Severity {
	switch severity {
	case uint8(abi.SeverityCritical):
		return Critical
	case uint8(abi.SeverityWarning):
		return Warning
	default:
		return Info
	}
}
