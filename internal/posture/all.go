// SPDX-License-Identifier: Apache-2.0

package posture

// collectors is the registry: one line for each collector, in the order of
// the documentation.
func collectors() []Spec {
	return []Spec{
		osCollector(),
		loginDefsCollector(),
		sshdCollector(),
		sysctlCollector(),
		servicesCollector(),
		cronCollector(),
		hostsAccessCollector(),
	}
}
