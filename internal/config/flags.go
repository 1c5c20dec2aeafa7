// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/prometheus/exporter-toolkit/web/kingpinflag"
)

// flags are the values as given, before they are checked. Everything that is
// not a bool is a string, so that one place words all refusals.
type flags struct {
	app     *kingpin.Application
	printed bool

	web           *web.FlagConfig
	telemetryPath *string
	logLevel      *string
	logFormat     *string
	ebpfEnabled   *bool
	sampleRate    *string
	detailed      *bool
	maxEvents     *string
	probes        *string
	hookPolicy    *string
	procfs        *string
	sysfs         *string
	rootfs        *string
	goMetrics     *bool
	harden        *bool
	lifecycle     *bool
	collectors    map[string]*bool
	configFile    *string

	sampleRateFixed, arguments    *bool
	topCapacity, topN, topWindow  *string
	output, fileSize, fileBackups *string
	apiAddress                    *string
	apiSet                        bool

	legacyNames, servicesEnabled, servicesRunning, cronFullCommand *bool
	portStates                                                     *string
}

func newFlags(known Known, stdout io.Writer) *flags {
	app := kingpin.New("security-exporter", "Exports the security of a Linux host as Prometheus metrics.\n\n"+
		"On a host where it runs, `security-exporter status`, `security-exporter top` and `security-exporter events` show what it sees; each has --help. "+
		"`security-exporter check-config` with the flags of the service checks them and the configuration file, and starts nothing.")
	f := &flags{app: app}
	app.UsageWriter(stdout).ErrorWriter(stdout).Terminate(func(int) { f.printed = true })
	app.Version(known.Version)
	app.HelpFlag.Short('h')

	f.web = kingpinflag.AddFlags(app, DefaultListenAddress)
	f.telemetryPath = app.Flag("web.telemetry-path", "URL path of the metrics page.").Default(DefaultTelemetryPath).String()
	f.lifecycle = app.Flag("web.enable-lifecycle", "Let POST /-/reload apply --config.file again, as SIGHUP does.").Default("false").Bool()
	f.logLevel = app.Flag("log.level", "Least severe messages to log: debug, info, warn or error.").Default("info").String()
	f.logFormat = app.Flag("log.format", "Format of log messages: logfmt or json.").Default("logfmt").String()
	f.harden = app.Flag("harden", "Once started, give up the capabilities that are not needed, and have the kernel refuse to execute programs.").Default("true").Bool()
	f.configFile = app.Flag("config.file", "YAML file with watched files, waived checks, expected kernel parameters and intervals of collectors (see docs/config.example.yml). SIGHUP applies it again.").Default("").String()

	f.ebpfEnabled = app.Flag("ebpf.enabled", "Count security events in the kernel with eBPF.").Default("false").Bool()
	f.probes = app.Flag("ebpf.probes", "Comma-separated probes to run, from: "+strings.Join(known.Probes, ", ")+".").Default(strings.Join(known.Probes, ",")).String()
	f.hookPolicy = app.Flag("ebpf.hook-policy", "Kind of kernel hooks to use where a probe has the choice: "+strings.Join(hookPolicies, ", ")+". auto takes the best that the kernel offers.").Default(hookPolicies[0]).String()
	f.sampleRate = app.Flag("ebpf.sample-rate", fmt.Sprintf("Starting sample rate of detail events, one in N, %d to %d. Counters are never sampled.", MinSampleRate, MaxSampleRate)).Default(defaultSampleRate).String()
	f.detailed = app.Flag("ebpf.detailed", "Produce detail events.").Default("false").Bool()
	f.maxEvents = app.Flag("ebpf.max-events-per-second", fmt.Sprintf("Detail events per second to aim at, %d to %d.", MinEventsPerSecond, MaxEventsPerSecond)).Default(defaultEventsPerSec).String()
	f.addEvents()

	f.procfs = app.Flag("path.procfs", "Where the host's procfs is mounted.").Default("/proc").String()
	f.sysfs = app.Flag("path.sysfs", "Where the host's sysfs is mounted.").Default("/sys").String()
	f.rootfs = app.Flag("path.rootfs", "Where the host's root file system is mounted.").Default("/").String()

	f.goMetrics = app.Flag("collector.go-metrics", "Export go_* and process_* metrics of the exporter itself.").Default("false").Bool()
	f.addCollectors(known)
	f.addPosture(known)
	return f
}

// addEvents declares what concerns detail events and the ways out of them.
func (f *flags) addEvents() {
	flag := f.app.Flag
	f.sampleRateFixed = flag("ebpf.sample-rate-fixed", "Keep the sample rate as it was given, whatever the volume.").Default("false").Bool()
	f.topCapacity = flag("ebpf.top-capacity", fmt.Sprintf("How many keys each list of the busiest holds, %d to %d; more is more exact.", MinTopCapacity, MaxTopCapacity)).Default(defaultTopCapacity).String()
	f.topN = flag("ebpf.top-n", "How many keys of each list of the busiest are exported as metrics, 0 to --ebpf.top-capacity.").Default(defaultTopN).String()
	f.topWindow = flag("ebpf.top-window", "How far the lists of the busiest look back, 10s to 24h.").Default(defaultTopWindow).String()
	f.output = flag("events.output", "Write detail events as JSON lines to stdout or to file:PATH. Implies --ebpf.detailed.").Default("").String()
	f.fileSize = flag("events.file-size", fmt.Sprintf("Size in MiB at which the file of --events.output is rotated, 1 to %d.", MaxFileMiB)).Default(defaultFileMiB).String()
	f.fileBackups = flag("events.file-backups", fmt.Sprintf("How many rotated files are kept, 1 to %d.", MaxFileBackups)).Default(defaultFileBackups).String()
	f.arguments = flag("events.arguments", "Put the arguments of executed programs into detail events; they may hold secrets.").Default("false").Bool()
	f.apiAddress = flag("api.listen-address", "Where the local API listens: the path of a Unix socket, or HOST:PORT on loopback or with TLS and authentication in --web.config.file. Empty turns it off.").Default(DefaultAPIAddress).IsSetByUser(&f.apiSet).String()
}

// addCollectors declares one switch for each collector.
func (f *flags) addCollectors(known Known) {
	f.collectors = make(map[string]*bool, len(known.Collectors))
	for _, name := range known.Collectors {
		on := "true"
		if slices.Contains(known.OffByDefault, name) {
			on = "false"
		}
		f.collectors[name] = f.app.Flag("collector."+name, "Run the "+name+" collector.").Default(on).Bool()
	}
}

// addPosture declares the settings of single collectors.
func (f *flags) addPosture(known Known) {
	f.legacyNames = f.app.Flag("collector.legacy-names", "Export the posture metrics under the names of the earlier exporter too.").Default("true").Bool()
	f.portStates = f.app.Flag("collector.port-states", "Comma-separated TCP states to list, from: "+strings.Join(known.PortStates, ", ")+".").Default(strings.Join(known.PortStates[:min(1, len(known.PortStates))], "")).String()
	f.servicesEnabled = f.app.Flag("collector.services-enabled", "List only services that are enabled.").Default("true").Bool()
	f.servicesRunning = f.app.Flag("collector.services-running", "List only services that run.").Default("false").Bool()
	f.cronFullCommand = f.app.Flag("collector.cron.full-command", "Show the commands of cron with their arguments, which may hold secrets.").Default("false").Bool()
}

// WriteFlags writes the flags as a Markdown table.
func WriteFlags(w io.Writer, known Known) error {
	f := newFlags(known, io.Discard)
	var b strings.Builder
	b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	for _, m := range f.app.Model().Flags {
		if m.Hidden {
			continue
		}
		name, def := "--"+m.Name, strings.Join(m.Default, ",")
		if m.IsBoolFlag() && def == "" {
			def = "false"
		}
		if def != "" {
			def = "`" + def + "`"
		}
		help := strings.NewReplacer("\n", " ", "|", `\|`).Replace(m.Help)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, def, help)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteFish writes completions of the flags for the fish shell; kingpin makes
// those of bash and zsh.
func WriteFish(w io.Writer, known Known) error {
	f := newFlags(known, io.Discard)
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\n", " ")
	var b strings.Builder
	for _, m := range f.app.Model().Flags {
		if m.Hidden {
			continue
		}
		value := " -r"
		if m.IsBoolFlag() {
			value = ""
		}
		fmt.Fprintf(&b, "complete -c %s -l '%s'%s -d '%s'\n", f.app.Name, quote.Replace(m.Name), value, quote.Replace(m.Help))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
