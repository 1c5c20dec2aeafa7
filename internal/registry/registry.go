// SPDX-License-Identifier: Apache-2.0

// Package registry tells the flags which probes, collectors and checks the
// program has, so that main and the documentation agree.
package registry

import (
	"security-exporter/internal/buildinfo"
	"security-exporter/internal/config"
	"security-exporter/internal/posture"
	"security-exporter/internal/sensor"
)

// Known is what the flags and the configuration file may name.
func Known() config.Known {
	k := config.Known{
		Probes: sensor.Names(), PortStates: posture.PortStates(), Checks: posture.CheckIDs(),
		Version: buildinfo.Text() + "\neBPF objects sha256:" + sensor.ObjectHash(),
	}
	for _, c := range posture.List() {
		k.Collectors = append(k.Collectors, c.Name)
		if !c.Default {
			k.OffByDefault = append(k.OffByDefault, c.Name)
		}
	}
	return k
}
