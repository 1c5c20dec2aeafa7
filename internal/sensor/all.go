// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"security-exporter/internal/config"
	"security-exporter/internal/sensor/probe"
	"security-exporter/internal/sensor/probes/file"
	"security-exporter/internal/sensor/probes/kernel"
	"security-exporter/internal/sensor/probes/network"
	"security-exporter/internal/sensor/probes/privilege"
	"security-exporter/internal/sensor/probes/process"
)

// all are the probes in the order in which they start. Privilege stands before
// process: at exit it reads the table entry that process removes, and programs
// on one hook run in the order in which they were attached.
func all(rules []config.FileRule) []*probe.Spec {
	return []*probe.Spec{
		privilege.New(),
		process.New(),
		network.New(),
		file.New(rules),
		kernel.New(),
	}
}
