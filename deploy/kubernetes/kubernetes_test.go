// SPDX-License-Identifier: Apache-2.0

// Package kubernetes holds the objects for a cluster, and the test that reads
// them as the API server would.
package kubernetes

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"security-exporter/internal/config"
	"security-exporter/internal/registry"
)

// objects decodes every object strictly: an unknown field is an error.
func objects(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile("security-exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]func() any{
		"Namespace":      func() any { return new(corev1.Namespace) },
		"ServiceAccount": func() any { return new(corev1.ServiceAccount) },
		"DaemonSet":      func() any { return new(appsv1.DaemonSet) },
	}
	out := map[string]any{}
	for _, part := range strings.Split(string(data), "\n---\n") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(part), &kind); err != nil {
			t.Fatal(err)
		}
		make, ok := types[kind.Kind]
		if !ok {
			t.Fatalf("kind %q is not expected", kind.Kind)
		}
		object := make()
		if err := yaml.UnmarshalStrict([]byte(part), object); err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
		}
		out[kind.Kind] = object
	}
	if len(out) != len(types) {
		t.Fatalf("%d objects, want %d", len(out), len(types))
	}
	return out
}

func TestObjects(t *testing.T) {
	t.Parallel()
	daemons := objects(t)["DaemonSet"].(*appsv1.DaemonSet)
	pod := daemons.Spec.Template.Spec
	for key, value := range daemons.Spec.Selector.MatchLabels {
		if daemons.Spec.Template.Labels[key] != value {
			t.Errorf("the selector asks for %s=%s, which the pods have not", key, value)
		}
	}
	c := pod.Containers[0]
	settings, err := config.Parse(hostless(c.Args), registry.Known(), io.Discard)
	if err != nil || !settings.EBPF.Enabled {
		t.Errorf("the program does not take the arguments: %v", err)
	}
	s := c.SecurityContext
	if *s.Privileged || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !pod.HostPID {
		t.Errorf("security context %+v", s)
	}
	for _, m := range c.VolumeMounts {
		if !m.ReadOnly {
			t.Errorf("%s is not mounted read-only", m.MountPath)
		}
		if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			t.Errorf("there is no volume %s", m.Name)
		}
	}
	var granted []string
	for _, name := range s.Capabilities.Add {
		granted = append(granted, "CAP_"+string(name))
	}
	unit, err := os.ReadFile("../systemd/security-exporter.service")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	line, _, _ := strings.Cut(after, "\n")
	if want := strings.Fields(line); !slices.Equal(granted, want) {
		t.Errorf("capabilities %v, the unit has %v", granted, want)
	}
}

// hostless leaves /host out of paths, which is not here.
func hostless(args []string) []string {
	out := slices.Clone(args)
	for i := range out {
		out[i] = strings.Replace(out[i], "=/host/", "=/", 1)
		if out[i] == "--path.rootfs=/host" {
			out[i] = "--path.rootfs=/"
		}
	}
	return out
}
