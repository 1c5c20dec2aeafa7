// SPDX-License-Identifier: Apache-2.0

// Package grafana makes the dashboards; `make dashboards` writes them as the
// JSON that Grafana imports.
package grafana

import (
	"encoding/json"
	"strings"
)

// Panel is one picture: a title, what is drawn (timeseries, stat or table),
// the unit as Grafana names it, and queries with their legends.
type Panel struct {
	Title, Kind, Unit string
	Queries           [][2]string
}

// Dashboard is a page of panels, two in a row. Variables are names of labels
// to choose by.
type Dashboard struct {
	File, UID, Title string
	Variables        []string
	Panels           []Panel
}

// Dashboards are the pages there are.
func Dashboards() []Dashboard {
	return []Dashboard{fleet(), host()}
}

func fleet() Dashboard {
	return Dashboard{
		File: "fleet.json", UID: "security-fleet", Title: "Security: fleet", Variables: []string{"job"},
		Panels: []Panel{
			{"Hosts that answer", "stat", "short", [][2]string{{`sum(job:up:sum{job=~"$job"})`, "up"}, {`sum(job:up:count{job=~"$job"})`, "all"}}},
			{"State of eBPF", "timeseries", "short", [][2]string{{`sum by (status) (job_status:security_ebpf_up:count{job=~"$job"})`, "{{status}}"}}},
			{"Programs executed", "timeseries", "ops", [][2]string{{`sum by (type) (job_type:security_ebpf_process_exec:rate5m{job=~"$job"})`, "{{type}}"}}},
			{"Connections", "timeseries", "ops", [][2]string{{`sum by (direction, protocol) (job_direction_protocol:security_ebpf_connect:rate5m{job=~"$job"})`, "{{direction}} {{protocol}}"}}},
			{"Connections that failed", "timeseries", "ops", [][2]string{{`sum by (type) (job_type:security_ebpf_connect_error:rate5m{job=~"$job"})`, "{{type}}"}}},
			{"Watched files", "timeseries", "ops", [][2]string{{`sum by (severity, operation) (job_severity_operation:security_ebpf_file_access:rate5m{job=~"$job"})`, "{{severity}} {{operation}}"}}},
			{"Privileges gained", "timeseries", "ops", [][2]string{{`sum by (via) (job_via:security_ebpf_privilege_gained:rate5m{job=~"$job"})`, "{{via}}"}}},
			{"Hosts that need a reboot", "stat", "short", [][2]string{{`sum(job:linux_security_reboot_required:sum{job=~"$job"})`, "reboot"}}},
			{"Checks that fail, by hosts", "table", "short", [][2]string{{`sort_desc(sum by (section, check) (job_check_section:linux_security_check_failed:count{job=~"$job"}))`, ""}}},
			{"Hosts with most failing checks", "table", "short", [][2]string{{`topk(20, instance:linux_security_check_failed:count{job=~"$job"})`, ""}}},
		},
	}
}

func host() Dashboard {
	const on = `job=~"$job", instance=~"$instance"`
	rate := func(metric, by string) string {
		return "sum by (" + by + ") (rate(" + metric + "{" + on + "}[$__rate_interval]))"
	}
	return Dashboard{
		File: "host.json", UID: "security-host", Title: "Security: host", Variables: []string{"job", "instance"},
		Panels: []Panel{
			{"Exporter", "table", "short", [][2]string{{"security_exporter_hardening_info{" + on + "}", ""}}},
			{"Probes", "table", "short", [][2]string{{"security_ebpf_probe_info{" + on + "}", ""}}},
			{"Programs executed", "timeseries", "ops", [][2]string{{rate("security_ebpf_process_exec_total", "type"), "{{type}}"}}},
			{"Processes", "timeseries", "short", [][2]string{{"sum by (type) (security_ebpf_process_active_count{" + on + "})", "{{type}}"}}},
			{"Connections", "timeseries", "ops", [][2]string{{rate("security_ebpf_connect_total", "direction, protocol"), "{{direction}} {{protocol}}"}}},
			{"Connections that failed", "timeseries", "ops", [][2]string{{rate("security_ebpf_connect_error_total", "type"), "{{type}}"}}},
			{"Watched files", "timeseries", "ops", [][2]string{{rate("security_ebpf_file_access_total", "severity, operation"), "{{severity}} {{operation}}"}}},
			{"Privileges gained", "timeseries", "ops", [][2]string{{rate("security_ebpf_privilege_gained_total", "via"), "{{via}}"}}},
			{"Detail events lost", "timeseries", "ops", [][2]string{{rate("security_ebpf_events_lost_total", "probe, reason"), "{{probe}} {{reason}}"}}},
			{"Fill of kernel tables", "timeseries", "percentunit", [][2]string{{"security_ebpf_map_entries{" + on + "} / (security_ebpf_map_capacity{" + on + "} > 0)", "{{map}}"}}},
			{"Checks", "table", "short", [][2]string{{"linux_security_check_passed{" + on + "}", ""}}},
			{"Listening sockets", "table", "short", [][2]string{{"linux_security_ports_use_info{" + on + "}", ""}}},
			{"Accounts", "timeseries", "short", [][2]string{{"linux_security_accounts{" + on + "}", "{{state}}"}}},
			{"Collectors", "table", "short", [][2]string{{"linux_security_scrape_collector_success{" + on + "}", ""}}},
		},
	}
}

// Expand puts values in the place of Grafana's variables.
func Expand(query string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", ".+", "$instance", ".+").Replace(query)
}

type object = map[string]any

// JSON is the dashboard as Grafana imports it (schema version 39).
func (d Dashboard) JSON() ([]byte, error) {
	source := object{"type": "prometheus", "uid": "${datasource}"}
	variables := []object{{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}}
	for _, name := range d.Variables {
		variables = append(variables, object{
			"name": name, "label": name, "type": "query", "datasource": source, "refresh": 2, "multi": true, "includeAll": true, "allValue": ".+",
			"query": object{"query": `label_values(security_exporter_build_info, ` + name + `)`, "refId": name},
		})
	}
	var panels []object
	for i, p := range d.Panels {
		var targets []object
		for j, q := range p.Queries {
			targets = append(targets, object{
				"refId": string(rune('A' + j)), "datasource": source, "expr": q[0], "legendFormat": q[1],
				"instant": p.Kind == "table", "range": p.Kind != "table", "format": map[bool]string{true: "table", false: "time_series"}[p.Kind == "table"],
			})
		}
		panels = append(panels, object{
			"id": i + 1, "title": p.Title, "type": p.Kind, "datasource": source, "targets": targets,
			"gridPos":     object{"h": 8, "w": 12, "x": i % 2 * 12, "y": i / 2 * 8},
			"fieldConfig": object{"defaults": object{"unit": p.Unit}, "overrides": []object{}},
		})
	}
	out, err := json.MarshalIndent(object{
		"uid": d.UID, "title": d.Title, "tags": []string{"security-exporter"}, "schemaVersion": 39, "editable": true,
		"time": object{"from": "now-6h", "to": "now"}, "refresh": "1m", "timezone": "browser",
		"templating": object{"list": variables}, "panels": panels,
	}, "", "  ")
	return append(out, '\n'), err
}
