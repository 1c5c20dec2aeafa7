// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"security-exporter/internal/config"
	"security-exporter/internal/registry"
)

var update = flag.Bool("update", false, "rewrite the golden files and what is made from the chart")

const (
	chartDir  = "security-exporter"
	release   = "security-exporter"
	namespace = "security-exporter"
)

// ruleFiles are those that the chart has copies of: helm takes no file from
// outside of a chart.
var ruleFiles = []string{"alerts", "recording"}

// The copies are made first: everything else is rendered from them.
func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		for _, name := range ruleFiles {
			if err := copyRules(name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

func copyRules(name string) error {
	data, err := os.ReadFile("../prometheus/" + name + ".yml")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(chartDir, "rules", name+".yml"), data, 0o644)
}

// same compares a file with what it should hold, or rewrites it.
func same(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is not what it is made from (%v); run make chart", path, err)
	}
}

// render is helm template, file by file; NOTES.txt is among them.
func render(values map[string]any) (map[string]string, error) {
	c, err := loader.LoadDir(chartDir)
	if err != nil {
		return nil, err
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: release, Namespace: namespace, IsInstall: true, Revision: 1}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(context.Background(), c, all)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(files, func(_, text string) bool { return strings.TrimSpace(text) == "" })
	return files, nil
}

// manifests are the rendered objects as one text.
func manifests(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".yaml") {
			for _, part := range split(files[name]) {
				fmt.Fprintf(&b, "---\n# Source: %s\n%s\n", name, part)
			}
		}
	}
	return b.String()
}

// split separates the documents of a YAML stream.
func split(text string) []string {
	var out []string
	for _, part := range strings.Split("\n"+text, "\n---\n") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

func readValues(t *testing.T, path string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return values
}

// objects decodes every document as the API server would with strict field
// validation: an unknown or doubled field is an error.
func objects(t *testing.T, text string) map[string]any {
	t.Helper()
	types := map[string]func() any{
		"v1/Namespace":                            func() any { return new(corev1.Namespace) },
		"v1/ServiceAccount":                       func() any { return new(corev1.ServiceAccount) },
		"v1/ConfigMap":                            func() any { return new(corev1.ConfigMap) },
		"apps/v1/DaemonSet":                       func() any { return new(appsv1.DaemonSet) },
		"networking.k8s.io/v1/NetworkPolicy":      func() any { return new(networkingv1.NetworkPolicy) },
		"monitoring.coreos.com/v1/PodMonitor":     func() any { return new(monitoringv1.PodMonitor) },
		"monitoring.coreos.com/v1/PrometheusRule": func() any { return new(monitoringv1.PrometheusRule) },
	}
	out := map[string]any{}
	for _, part := range split(text) {
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(part), &head); err != nil {
			t.Fatalf("%v\n%s", err, part)
		}
		make, ok := types[head.APIVersion+"/"+head.Kind]
		if !ok {
			t.Fatalf("%s/%s is not expected", head.APIVersion, head.Kind)
		}
		object := make()
		data, err := yaml.YAMLToJSONStrict([]byte(part))
		if err != nil {
			t.Fatalf("%s: %v", head.Kind, err)
		}
		// Not yaml.UnmarshalStrict, which takes hostpid for hostPID.
		if errs, err := json.UnmarshalStrict(data, object); err != nil || len(errs) > 0 {
			t.Errorf("%s: %v %v", head.Kind, err, errs)
		}
		out[head.Kind+" "+head.Metadata.Name] = object
	}
	return out
}

// TestRender compares what each set of values gives with a golden file, and
// reads it as the API server and the exporter would.
func TestRender(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		want []string
	}{
		{"default", []string{"DaemonSet security-exporter", "NetworkPolicy security-exporter", "ServiceAccount security-exporter"}},
		{"operator", []string{
			"ConfigMap node-security", "DaemonSet node-security", "NetworkPolicy node-security", "PodMonitor node-security",
			"PrometheusRule node-security-alerts", "PrometheusRule node-security-recording", "ServiceAccount node-security",
		}},
		{"posture", []string{"DaemonSet security-exporter", "ServiceAccount security-exporter"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join("testdata", c.name)
			values := readValues(t, filepath.Join(dir, "values.yaml"))
			for _, m := range lint.RunAll(chartDir, values, namespace).Messages {
				if m.Severity > support.InfoSev {
					t.Errorf("helm lint: %v", m)
				}
			}
			files, err := render(values)
			if err != nil {
				t.Fatal(err)
			}
			same(t, filepath.Join(dir, "rendered.yaml"), manifests(files))
			same(t, filepath.Join(dir, "notes.txt"), files[chartDir+"/templates/NOTES.txt"])
			found := objects(t, manifests(files))
			if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, c.want) {
				t.Errorf("objects %q, want %q", got, c.want)
			}
			for _, object := range found {
				if daemons, ok := object.(*appsv1.DaemonSet); ok {
					checkDaemons(t, daemons, found)
				}
			}
		})
	}
}

// checkDaemons holds the DaemonSet against the program and the systemd unit.
func checkDaemons(t *testing.T, daemons *appsv1.DaemonSet, found map[string]any) {
	t.Helper()
	pod := daemons.Spec.Template.Spec
	for key, value := range daemons.Spec.Selector.MatchLabels {
		if daemons.Spec.Template.Labels[key] != value {
			t.Errorf("the selector asks for %s=%s, which the pods have not", key, value)
		}
	}
	if _, ok := found["ServiceAccount "+pod.ServiceAccountName]; !ok || *pod.AutomountServiceAccountToken {
		t.Errorf("service account %q, token mounted: %v", pod.ServiceAccountName, *pod.AutomountServiceAccountToken)
	}
	c := pod.Containers[0]
	settings, err := config.Parse(here(t, c.Args, found), registry.Known(), io.Discard)
	if err != nil {
		t.Fatalf("the program does not take the arguments: %v", err)
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
	unit, err := os.ReadFile("../systemd/security-exporter.service")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(unit), "\nCapabilityBoundingSet=")
	line, _, _ := strings.Cut(after, "\n")
	want := slices.DeleteFunc(strings.Fields(line), func(name string) bool {
		return !settings.EBPF.Enabled && (name == "CAP_BPF" || name == "CAP_PERFMON")
	})
	var granted []string
	for _, name := range s.Capabilities.Add {
		granted = append(granted, "CAP_"+string(name))
	}
	if !slices.Equal(granted, want) || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("capabilities %v, dropped %v; the unit has %v", granted, s.Capabilities.Drop, want)
	}
}

// here makes arguments of the container fit to be read on this machine: paths
// below /host are the machine's own, and mounted files lie in a folder.
func here(t *testing.T, args []string, found map[string]any) []string {
	t.Helper()
	dir := t.TempDir()
	var out []string
	for _, arg := range args {
		switch name, value, _ := strings.Cut(arg, "="); {
		case value == "/host":
			arg = name + "=/"
		case strings.HasPrefix(value, "/host/"):
			arg = name + "=" + strings.TrimPrefix(value, "/host")
		case name == "--config.file" || name == "--web.config.file":
			text := ""
			for _, object := range found {
				if c, ok := object.(*corev1.ConfigMap); ok && name == "--config.file" {
					text = c.Data[filepath.Base(value)]
				}
			}
			path := filepath.Join(dir, filepath.Base(value))
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			arg = name + "=" + path
		}
		out = append(out, arg)
	}
	return out
}

// TestRules: the chart's rules are those of deploy/prometheus, and what is
// rendered still has Prometheus' own templates.
func TestRules(t *testing.T) {
	t.Parallel()
	files, err := render(readValues(t, "testdata/operator/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := objects(t, manifests(files))
	for _, name := range ruleFiles {
		data, err := os.ReadFile("../prometheus/" + name + ".yml")
		if err != nil {
			t.Fatal(err)
		}
		same(t, filepath.Join(chartDir, "rules", name+".yml"), string(data))
		var want monitoringv1.PrometheusRuleSpec
		if err := yaml.UnmarshalStrict(data, &want); err != nil {
			t.Fatal(err)
		}
		rule := found["PrometheusRule node-security-"+name].(*monitoringv1.PrometheusRule)
		if len(want.Groups) == 0 || !reflect.DeepEqual(rule.Spec, want) {
			t.Errorf("the rendered rules are not those of %s.yml", name)
		}
	}
}

// TestManifest: what kubectl applies is the chart with its own values.
func TestManifest(t *testing.T) {
	t.Parallel()
	files, err := render(map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	const path = "../kubernetes/security-exporter.yaml"
	text := head + manifests(files)
	same(t, path, text)
	if objects(t, text)["Namespace "+namespace] == nil {
		t.Errorf("%s has no namespace", path)
	}
}

const head = `# SPDX-License-Identifier: Apache-2.0
#
# security-exporter on every node, for kubectl apply -f. Made from deploy/helm
# by make chart; do not edit. Put your image in its place (deploy/Dockerfile).
# The namespace must allow host paths and hostPID: Pod Security level
# "privileged". The container itself is not privileged.
apiVersion: v1
kind: Namespace
metadata:
  name: security-exporter
  labels:
    pod-security.kubernetes.io/enforce: privileged
`

// TestRefused: a value that the chart does not have, or that cannot be, is one
// line that names it.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ values, want string }{
		{"ebfp: {enabled: true}", "- at '': additional properties 'ebfp' not allowed"},
		{"image: {name: x}", "- at '/image': additional properties 'name' not allowed"},
		{"podMonitor: {tlsConfig: {ca: {secret: {name: x, key: k, z: 1}}}}", "- at '/podMonitor/tlsConfig/ca/secret': additional properties 'z' not allowed"},
		{"podMonitor: {scheme: ftp}", "- at '/podMonitor/scheme': value must be one of 'http', 'https'"},
		{"tolerations: [{operator: Sometimes}]", "- at '/tolerations/0/operator': value must be one of 'Exists', 'Equal'"},
		{"resources: {limits: {gpu: 1}}", "- at '/resources/limits': additional properties 'gpu' not allowed"},
		{"port: 0", "- at '/port': minimum: got 0, want 1"},
		{"port: '9102'", "- at '/port': got string, want integer"},
		{"config: {checks: {}}", "- at '/config': got object, want string"},
		{"extraArgs: [collector.cron]", "- at '/extraArgs/0': 'collector.cron' does not match pattern '^--'"},
		{"image: {digest: latest}", "- at '/image/digest': 'latest' does not match pattern '^(sha256:[0-9a-f]{64})?$'"},
		{"seccompProfile: {type: Localhost}", "- at '/seccompProfile': missing property 'localhostProfile'"},
	} {
		t.Run(c.values, func(t *testing.T) {
			t.Parallel()
			values := map[string]any{}
			if err := yaml.Unmarshal([]byte(c.values), &values); err != nil {
				t.Fatal(err)
			}
			_, err := render(values)
			if err == nil {
				t.Fatal("not refused")
			}
			lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
			if got := lines[2:]; len(got) != 1 || got[0] != c.want {
				t.Errorf("got  %q\nwant %q", lines, c.want)
			}
		})
	}
}

// TestClosed: no object of the schema takes a property that it does not name,
// unless its names are the user's own; and every value has a place in it.
func TestClosed(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := yaml.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	free := map[string]bool{
		"/global": true, "/nodeSelector": true, "/podAnnotations": true, "/podLabels": true, "/podMonitor/labels": true, "/prometheusRule/labels": true,
		"/networkPolicy/from/podSelector/matchLabels": true, "/networkPolicy/from/namespaceSelector/matchLabels": true,
	}
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		if s["type"] == "object" && s["additionalProperties"] != false && !free[path] {
			t.Errorf("%s takes any property", path)
		}
		if items, ok := s["items"].(map[string]any); ok {
			walk(path, items)
		}
		properties, _ := s["properties"].(map[string]any)
		for name, p := range properties {
			walk(path+"/"+name, p.(map[string]any))
		}
	}
	walk("", schema)
	properties := schema["properties"].(map[string]any)
	for name := range readValues(t, filepath.Join(chartDir, "values.yaml")) {
		if properties[name] == nil {
			t.Errorf("the schema has no %s", name)
		}
	}
}
