// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"crypto/sha256"
	"encoding/hex"

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
func all(rules *file.Rules) []*probe.Spec {
	return []*probe.Spec{
		privilege.New(),
		process.New(),
		network.New(),
		file.New(rules),
		kernel.New(),
	}
}

// ObjectHash is the SHA-256 of the eBPF objects in the program, one after the
// other, in hexadecimal. It differs between architectures.
func ObjectHash() string {
	h := sha256.New()
	for _, spec := range all(nil) {
		h.Write(spec.Object)
	}
	return hex.EncodeToString(h.Sum(nil))
}
