// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/exporter-toolkit/web"
)

// ReservedPaths are the URL paths that the server keeps for itself.
func ReservedPaths() []string { return []string{"/", "/healthz", "/readyz", "/-/reload"} }

// Parse reads the command line (without the program name) and the files it
// names. Help and version go to stdout, followed by ErrPrinted. Any other
// error is one line that says which flag or which line of which file is
// wrong, and what would be right.
func Parse(args []string, known Known, stdout io.Writer) (*Config, error) {
	f := newFlags(known, stdout)
	args, err := Normalise(args, f.app)
	if err != nil {
		return nil, err
	}
	_, err = f.app.Parse(args)
	if f.printed {
		return nil, ErrPrinted
	}
	if err != nil {
		return nil, errors.New(oneLine(err.Error()))
	}
	return f.validate(known)
}

// check is one validation; it fills its part of the configuration.
type check struct {
	flag, value string
	apply       func(value string) error
}

func (f *flags) validate(known Known) (*Config, error) {
	c := &Config{
		Web:        *f.web,
		GoMetrics:  *f.goMetrics,
		Harden:     *f.harden,
		Lifecycle:  *f.lifecycle,
		EBPF:       EBPF{Enabled: *f.ebpfEnabled, Detailed: *f.detailed || *f.output != "", SampleRateFixed: *f.sampleRateFixed},
		Events:     Events{Arguments: *f.arguments},
		API:        API{Explicit: f.apiSet},
		Collectors: make(map[string]bool, len(f.collectors)),
		Posture: Posture{
			LegacyNames: *f.legacyNames, CronFullCommand: *f.cronFullCommand,
			ServicesEnabled: *f.servicesEnabled, ServicesRunning: *f.servicesRunning,
		},
	}
	for name, on := range f.collectors {
		c.Collectors[name] = *on
	}
	var checks []check
	for _, addr := range *f.web.WebListenAddresses {
		checks = append(checks, check{"web.listen-address", addr, checkListenAddress})
	}
	checks = append(checks,
		check{"web.config.file", *f.web.WebConfigFile, checkWebConfig},
		check{"web.telemetry-path", *f.telemetryPath, store(&c.TelemetryPath, checkTelemetryPath)},
		check{"log.level", *f.logLevel, store(&c.LogLevel, oneOf("debug", "info", "warn", "error"))},
		check{"log.format", *f.logFormat, store(&c.LogFormat, oneOf("logfmt", "json"))},
		check{"ebpf.sample-rate", *f.sampleRate, func(s string) (err error) {
			c.EBPF.SampleRate, err = number[uint32](s, MinSampleRate, MaxSampleRate)
			return err
		}},
		check{"ebpf.max-events-per-second", *f.maxEvents, func(s string) (err error) {
			c.EBPF.MaxEventsPerSecond, err = number[int](s, MinEventsPerSecond, MaxEventsPerSecond)
			return err
		}},
		check{"ebpf.hook-policy", *f.hookPolicy, store(&c.EBPF.HookPolicy, oneOf(hookPolicies...))},
		check{"ebpf.top-capacity", *f.topCapacity, func(s string) (err error) {
			c.EBPF.TopCapacity, err = number[int](s, MinTopCapacity, MaxTopCapacity)
			return err
		}},
		check{"ebpf.top-n", *f.topN, func(s string) (err error) {
			c.EBPF.TopN, err = number[int](s, 0, c.EBPF.TopCapacity)
			return err
		}},
		check{"ebpf.top-window", *f.topWindow, func(s string) (err error) {
			c.EBPF.TopWindow, err = duration(s, MinTopWindow, MaxTopWindow)
			return err
		}},
		check{"events.output", *f.output, c.Events.checkOutput},
		check{"events.file-size", *f.fileSize, func(s string) (err error) {
			c.Events.FileMiB, err = number[int](s, 1, MaxFileMiB)
			return err
		}},
		check{"events.file-backups", *f.fileBackups, func(s string) (err error) {
			c.Events.FileBackups, err = number[int](s, 1, MaxFileBackups)
			return err
		}},
		check{"ebpf.probes", *f.probes, func(s string) (err error) {
			c.EBPF.Probes, err = subset(s, "probe", known.Probes)
			return err
		}},
		check{"collector.port-states", *f.portStates, func(s string) (err error) {
			c.Posture.PortStates, err = subset(s, "state", known.PortStates)
			return err
		}},
		check{"path.procfs", *f.procfs, directory(&c.ProcFS)},
		check{"path.sysfs", *f.sysfs, directory(&c.SysFS)},
		check{"path.rootfs", *f.rootfs, directory(&c.RootFS)},
		check{"api.listen-address", *f.apiAddress, func(s string) error { return c.API.check(s, *f.web.WebConfigFile) }},
	)
	for _, k := range checks {
		if err := k.apply(k.value); err != nil {
			return nil, fmt.Errorf("--%s=%s: %s", k.flag, printable(k.value), oneLine(err.Error()))
		}
	}
	c.FileRules = DefaultFileRules()
	if *f.configFile != "" {
		if err := c.loadFile(*f.configFile, known); err != nil {
			return nil, fmt.Errorf("--config.file: %w", err)
		}
	}
	return c, nil
}

// store keeps a value that passes its check.
func store(to *string, ok func(string) error) func(string) error {
	return func(s string) error {
		*to = s
		return ok(s)
	}
}

func oneOf(allowed ...string) func(string) error {
	return func(s string) error {
		if slices.Contains(allowed, s) {
			return nil
		}
		return fmt.Errorf("want %s", strings.Join(allowed, ", "))
	}
}

func number[T int | uint32](s string, least, most T) (T, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil || T(n) < least || T(n) > most {
		return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
	}
	return T(n), nil
}

// subset parses a comma-separated list of known names, in the order of known.
// what is one of them, for messages.
func subset(s, what string, known []string) ([]string, error) {
	if s == "" && len(known) == 0 {
		return nil, nil
	}
	given := make(map[string]bool)
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown %s %q, want %s", what, name, strings.Join(known, ", "))
		}
		if given[name] {
			return nil, fmt.Errorf("%s %s comes twice", what, name)
		}
		given[name] = true
	}
	return slices.DeleteFunc(slices.Clone(known), func(name string) bool { return !given[name] }), nil
}

// directory stores an existing directory as an absolute clean path.
func directory(to *string) func(string) error {
	return func(s string) error {
		if !filepath.IsAbs(s) {
			return errors.New("want an absolute path")
		}
		st, err := os.Stat(s)
		if err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			return fmt.Errorf("%w; want an existing directory", err)
		}
		if !st.IsDir() {
			return errors.New("want a directory")
		}
		*to = filepath.Clean(s)
		return nil
	}
}

// checkListenAddress accepts what the exporter-toolkit can listen on.
func checkListenAddress(s string) error {
	const want = "want HOST:PORT, :PORT or vsock://:PORT"
	addr, isVsock := strings.CutPrefix(s, "vsock://")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return errors.New(want)
	}
	bits := 16
	if isVsock {
		bits = 32
	}
	if _, err := strconv.ParseUint(port, 10, bits); err != nil {
		return fmt.Errorf("port %q is no number below %d; %s", port, uint64(1)<<bits, want)
	}
	return nil
}

func checkWebConfig(s string) error {
	if err := web.Validate(s); err != nil {
		return fmt.Errorf("%w (see the exporter-toolkit's web configuration)", err)
	}
	return nil
}

// urlPath leaves out what the router or a browser would take for more than a
// letter: braces, %, ?, #.
var urlPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

func checkTelemetryPath(s string) error {
	switch {
	case slices.Contains(ReservedPaths(), s):
		return errors.New("is taken by the server itself; choose another, such as " + DefaultTelemetryPath)
	case !urlPath.MatchString(s) || path.Clean(s) != s:
		return errors.New("want a path such as " + DefaultTelemetryPath + ": letters, digits and . _ ~ - between slashes, none at the end")
	}
	return nil
}
