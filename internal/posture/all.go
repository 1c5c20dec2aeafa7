// SPDX-License-Identifier: Apache-2.0

package posture

// collectors is the registry: one line for each collector, in the order of
// the documentation.
func collectors() []Spec {
	return []Spec{
		osCollector(),
		packagesCollector(),
		accountsCollector(),
		passwordCollector(),
		sudoCollector(),
		loginDefsCollector(),
		sshdCollector(),
		portsCollector(),
		firewallCollector(),
		hostsAccessCollector(),
		servicesCollector(),
		cronCollector(),
		sysctlCollector(),
		auditCollector(),
		selinuxCollector(),
		apparmorCollector(),
		kernelCollector(),
		mountsCollector(),
		fileModesCollector(),
		timeCollector(),
		coreDumpsCollector(),
		checksCollector(),
	}
}
