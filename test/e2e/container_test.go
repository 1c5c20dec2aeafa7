// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"security-exporter/internal/testkit"
)

// daemonSet is what a container runtime needs of the manifest in
// deploy/kubernetes.
type daemonSet struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				HostPID     bool `yaml:"hostPID"`
				HostNetwork bool `yaml:"hostNetwork"`
				Containers  []struct {
					Args            []string
					SecurityContext struct {
						ReadOnlyRootFilesystem bool `yaml:"readOnlyRootFilesystem"`
						Capabilities           struct{ Add []string }
					} `yaml:"securityContext"`
					VolumeMounts []struct {
						Name             string
						MountPath        string `yaml:"mountPath"`
						ReadOnly         bool   `yaml:"readOnly"`
						MountPropagation string `yaml:"mountPropagation"`
					} `yaml:"volumeMounts"`
				}
				Volumes []struct {
					Name     string
					HostPath struct{ Path string } `yaml:"hostPath"`
				}
			}
		}
	}
}

func readDaemonSet(t *testing.T) daemonSet {
	t.Helper()
	data, err := os.ReadFile("../../deploy/kubernetes/security-exporter.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(data), "\n---\n") {
		var d daemonSet
		if err := yaml.Unmarshal([]byte(part), &d); err != nil {
			t.Fatal(err)
		}
		if d.Kind == "DaemonSet" {
			return d
		}
	}
	t.Fatal("there is no DaemonSet")
	return daemonSet{}
}

// capabilities are the names as Linux has them.
func (d daemonSet) capabilities() []string {
	var out []string
	for _, name := range d.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add {
		out = append(out, "CAP_"+name)
	}
	return out
}

type mount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

// bundle makes a folder for runc, with the root file system of the image and
// what a kubelet makes of the DaemonSet
// (https://github.com/opencontainers/runtime-spec/blob/main/config.md).
func (d daemonSet) bundle(t *testing.T, args []string) string {
	t.Helper()
	pod := d.Spec.Template.Spec
	container := pod.Containers[0]
	mounts := []mount{
		{"/proc", "proc", "proc", nil},
		{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "mode=755"}},
		{"/sys", "bind", "/sys", []string{"rbind", "nosuid", "noexec", "nodev", "ro"}},
	}
	for _, m := range container.VolumeMounts {
		options := []string{"rbind"}
		if m.ReadOnly {
			options = append(options, "ro")
		}
		if m.MountPropagation == "HostToContainer" {
			options = append(options, "rslave")
		}
		for _, v := range pod.Volumes {
			if v.Name == m.Name {
				mounts = append(mounts, mount{m.MountPath, "bind", v.HostPath.Path, options})
			}
		}
	}
	type namespace struct {
		Type string `json:"type"`
	}
	namespaces := []namespace{{"mount"}, {"ipc"}, {"uts"}}
	if !pod.HostPID {
		namespaces = append(namespaces, namespace{"pid"})
	}
	if !pod.HostNetwork {
		namespaces = append(namespaces, namespace{"network"})
	}
	granted := d.capabilities()
	config, err := json.Marshal(map[string]any{
		"ociVersion": "1.0.2",
		"root":       map[string]any{"path": "rootfs", "readonly": container.SecurityContext.ReadOnlyRootFilesystem},
		"process": map[string]any{
			"args": args, "cwd": "/", "noNewPrivileges": true,
			"user":         map[string]int{"uid": 0, "gid": 0},
			"capabilities": map[string][]string{"bounding": granted, "effective": granted, "permitted": granted},
		},
		"mounts": mounts,
		"linux": map[string]any{
			"namespaces":    namespaces,
			"maskedPaths":   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rootfs", "security-exporter"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// compared are the series that say how the host is set up, how each collector
// fared, which probes run and by which hooks, and what privileges are left.
var compared = regexp.MustCompile(`^(linux_security_|security_exporter_|security_ebpf_(up|probe_up|probe_info)\{)`)

// own are the exceptions: when and for how long an exporter itself was at work.
var own = regexp.MustCompile(`^(linux_security_(scrape_collector_duration_seconds|collector_last_success_timestamp_seconds)\{|security_exporter_config_last_reload_success_timestamp_seconds )`)

// setup are the compared series of a page, with their values.
func setup(page string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(page) {
		if compared.MatchString(line) && !own.MatchString(line) {
			out[strings.TrimSpace(line)] = true
		}
	}
	return out
}

// TestContainer: in a container with what the DaemonSet gives it, posture and
// the state of the probes are what they are on the host with the same
// capabilities.
func TestContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts a container")
	}
	for _, program := range []string{"runc", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			testkit.Missing(t, "needs %s (Debian: runc, util-linux)", program)
		}
	}
	d := readDaemonSet(t)
	inside := []string{"/security-exporter"}
	outside := []string{"--bounding-set=-all," + strings.ToLower(strings.ReplaceAll(strings.Join(d.capabilities(), ","), "CAP_", "+")), binary}
	for _, arg := range d.Spec.Template.Spec.Containers[0].Args {
		if strings.HasPrefix(arg, "--web.listen-address=") {
			arg = "--web.listen-address=127.0.0.1:0"
		}
		inside = append(inside, arg)
		if !strings.HasPrefix(arg, "--path.") {
			outside = append(outside, arg)
		}
	}
	// Both are to start at the same moment, to find the same listeners, which
	// are looked for once a minute; runc takes a while.
	state, name := t.TempDir(), fmt.Sprintf("security-exporter-test-%d", os.Getpid())
	contained := launchCmd(t, exec.Command("runc", "--root", state, "run", "--bundle", d.bundle(t, inside), name))
	t.Cleanup(func() { _ = exec.Command("runc", "--root", state, "delete", "--force", name).Run() })
	// It holds its program back while this file is there.
	held := filepath.Join(state, name, "exec.fifo")
	for end, seen := time.Now().Add(10*time.Second), false; time.Now().Before(end); time.Sleep(time.Millisecond) {
		_, err := os.Stat(held)
		if seen && err != nil {
			break
		}
		seen = err == nil
	}
	onHost := launchCmd(t, exec.Command("setpriv", outside...))
	for _, p := range []*process{onHost, contained} {
		p.waitListening(t)
		waitReady(t, p)
	}

	// What goes on meanwhile reaches the two at different times: a listener
	// that ends, say. What differs for another reason differs on.
	var want, got map[string]bool
	for end := time.Now().Add(150 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
		if want, got = setup(onHost.page(t)), setup(contained.page(t)); maps.Equal(want, got) {
			break
		}
	}
	if len(want) < 500 {
		t.Errorf("the host has %d series only", len(want))
	}
	for _, series := range slices.Sorted(maps.Keys(want)) {
		if !got[series] {
			t.Errorf("only on the host: %s", series)
		}
	}
	for _, series := range slices.Sorted(maps.Keys(got)) {
		if !want[series] {
			t.Errorf("only inside: %s", series)
		}
	}
	t.Logf("%d series are the same", len(want))
	contained.stop(t)
	onHost.stop(t)
}
