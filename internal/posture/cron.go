// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"path"
	"regexp"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads all that runs by the clock: /etc/crontab, /etc/cron.d, the crontabs of
// users (crontab(5)), the folders of run-parts(8), anacrontab(5), the spool of
// at(1) and the timers of systemd (systemd.timer(5)); and who may use crontab
// and at (crontab(1), at.allow(5)).

// cronSpools are the folders with one file for each user: Red Hat and Arch,
// Debian and Alpine, SUSE.
var cronSpools = [...]string{"/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/tabs"}

// cronFolders hold programs to be run, by kind; /etc/periodic is Alpine's.
var cronFolders = [...]struct{ kind, dir string }{
	{"hourly", "/etc/cron.hourly"}, {"daily", "/etc/cron.daily"}, {"weekly", "/etc/cron.weekly"},
	{"monthly", "/etc/cron.monthly"}, {"hourly", "/etc/periodic/15min"}, {"hourly", "/etc/periodic/hourly"},
	{"daily", "/etc/periodic/daily"}, {"weekly", "/etc/periodic/weekly"}, {"monthly", "/etc/periodic/monthly"},
}

// atSpools hold the jobs of at(1): Red Hat, Debian, SUSE.
var atSpools = [...]string{"/var/spool/at", "/var/spool/cron/atjobs", "/var/spool/atjobs"}

// atJob is the name of a job: queue ("=" while it runs), number and minute.
var atJob = regexp.MustCompile(`^[A-Za-z=][0-9a-f]{13}$`)

var cronKinds = []string{"crontab", "cron_d", "user", "hourly", "daily", "weekly", "monthly", "anacron", "timer"}

// cronJob is a job as it is shown.
type cronJob struct {
	kind, user, source string
	// program has no arguments, command has them.
	program, command string
}

type cron struct {
	entry, entries, invalid, at, access *metric.Metric
}

func cronCollector() Spec {
	c := &cron{
		entry: metric.NewLegacy("linux_security_crontab_entry", "Job that runs by the clock; always 1, equal ones count once.",
			metric.Open("user", "User who runs it."),
			metric.Open("source", "File or folder it stands in, or the name of the timer."),
			metric.Open("command", "Program; with --collector.cron.full-command the whole command.")),
		entries: metric.New(metric.Gauge, "linux_security_cron_jobs", "Jobs that run by the clock.", metric.Closed("kind", cronKinds...)),
		invalid: metric.New(metric.Gauge, "linux_security_cron_invalid_lines", "Lines of crontabs that cron ignores because they are no job and no setting."),
		at:      metric.New(metric.Gauge, "linux_security_at_jobs", "Jobs in the spool of at."),
		access: metric.NewState("linux_security_cron_access_list_users",
			"Users in the list of who may or may not use the service; absent if there is no such list.",
			metric.Closed("service", "cron", "at"), metric.Closed("list", "allow", "deny")),
	}
	return Spec{
		Name:    "cron",
		Help:    "Jobs of cron, anacron, at and systemd timers.",
		Metrics: []*metric.Metric{c.entry, c.entries, c.invalid, c.at, c.access},
		Watch: []string{
			"/etc/crontab", "/etc/cron.d/*", "/etc/anacrontab", "/etc/cron.hourly/*", "/etc/cron.daily/*", "/etc/cron.weekly/*",
			"/etc/cron.monthly/*", "/var/spool/cron/*", "/var/spool/cron/crontabs/*", "/var/spool/cron/tabs/*",
			"/etc/cron.allow", "/etc/cron.deny", "/etc/at.allow", "/etc/at.deny",
		},
		Collect: c.collect,
	}
}

func (c *cron) collect(ctx context.Context, in *Input, out *metric.Batch) error {
	jobs, invalid, err := readCron(ctx, in.Rootfs)
	problems := []error{err}
	count := make(map[string]int)
	for _, j := range jobs {
		count[j.kind]++
		command := j.program
		if in.Settings.CronFullCommand {
			command = j.command
		}
		out.Add(c.entry, 1, j.user, j.source, command)
	}
	for _, kind := range cronKinds {
		out.Add(c.entries, float64(count[kind]), kind)
	}
	out.Add(c.invalid, float64(invalid))
	atJobs, err := countAtJobs(ctx, in.Rootfs)
	problems = append(problems, err)
	out.Add(c.at, float64(atJobs))
	for _, service := range [...]string{"cron", "at"} {
		for _, list := range [...]string{"allow", "deny"} {
			b, err := in.Rootfs.ReadLimit(ctx, "/etc/"+service+"."+list, 1<<20)
			if err != nil {
				problems = append(problems, unlessMissing(err))
				continue
			}
			out.Add(c.access, float64(len(strings.Fields(string(b)))), service, list)
		}
	}
	return Partial(errors.Join(problems...))
}

// readCron returns all jobs. With an error, they are those of the files that
// could be read.
func readCron(ctx context.Context, root *hostfs.Tree) (jobs []cronJob, invalid int, err error) {
	r := cronReader{ctx: ctx, root: root}
	_, err = root.Lstat(ctx, "/etc/debian_version")
	r.debian = err == nil
	r.file("crontab", "/etc/crontab", "", cronSystem)
	for _, f := range r.glob("/etc/cron.d/*") {
		if cronReads(path.Base(f), r.debian) {
			r.file("cron_d", f, "", cronSystem)
		}
	}
	for _, dir := range cronSpools {
		for _, f := range r.glob(dir + "/*") {
			if st, err := root.Lstat(ctx, f); err == nil && st.Mode.IsRegular() && !strings.HasPrefix(path.Base(f), "tmp.") {
				r.file("user", f, path.Base(f), cronUser)
			}
		}
	}
	for _, folder := range cronFolders {
		r.folder(folder.kind, folder.dir)
	}
	r.file("anacron", "/etc/anacrontab", "", cronAnacron)
	r.timers()
	return r.jobs, r.invalid, errors.Join(r.problems...)
}

type cronReader struct {
	ctx      context.Context
	root     *hostfs.Tree
	debian   bool
	jobs     []cronJob
	invalid  int
	problems []error
}

func (r *cronReader) problem(err error) { r.problems = append(r.problems, unlessMissing(err)) }

func (r *cronReader) glob(pattern string) []string {
	files, err := r.root.Glob(r.ctx, pattern)
	r.problem(err)
	return files
}

// cronReads is whether cron takes a file of /etc/cron.d for a crontab: Debian's
// by the rule of run-parts(8), cronie's if it is no backup.
func cronReads(name string, debian bool) bool {
	if debian {
		return strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
	}
	if strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
		return false
	}
	switch path.Ext(name) {
	case ".rpmsave", ".rpmorig", ".rpmnew":
		return false
	}
	return true
}

func (r *cronReader) file(kind, name, user string, form cronForm) {
	b, err := r.root.ReadLimit(r.ctx, name, 1<<20)
	if err != nil {
		r.problem(err)
		return
	}
	lines, invalid, err := parseCrontab(bytes.NewReader(b), form)
	r.problem(err)
	r.invalid += invalid
	for _, l := range lines {
		who := l.user
		if form == cronUser {
			who = user
		}
		r.jobs = append(r.jobs, cronJob{kind, who, name, shellProgram(l.command), l.command})
	}
}

// folder lists the programs that run-parts(8) would run as root.
func (r *cronReader) folder(kind, dir string) {
	for _, f := range r.glob(dir + "/*") {
		if !cronReads(path.Base(f), r.debian) {
			continue
		}
		if st, err := r.root.Stat(r.ctx, f); err != nil || !st.Mode.IsRegular() || st.Perm&0o111 == 0 {
			continue
		}
		r.jobs = append(r.jobs, cronJob{kind, "root", dir, f, f})
	}
}

// timers lists the timers that are enabled or that another unit starts.
func (r *cronReader) timers() {
	tree, err := readUnitTree(r.ctx, r.root)
	r.problem(err)
	for _, name := range append(tree.names("timer"), tree.wanted("timer")...) {
		state, timer, err := tree.state(r.ctx, name)
		if err != nil || state != unitEnabled && state != unitEnabledRuntime && (state == unitAlias || !tree.started(name)) || timer.masked {
			continue
		}
		service := unitValue(timer.settings, "Timer", "Unit")
		if service == "" {
			service = strings.TrimSuffix(name, ".timer") + ".service"
		}
		u, err := tree.load(r.ctx, service)
		if err != nil || u.masked {
			continue
		}
		user := unitValue(u.settings, "Service", "User")
		if user == "" {
			user = "root"
		}
		commands := unitValues(u.settings, "Service", "ExecStart")
		if len(commands) == 0 {
			continue
		}
		r.jobs = append(r.jobs, cronJob{"timer", user, name, execProgram(commands[0]), commands[0]})
	}
}

// execProgram is the program of an ExecStart=.
func execProgram(command string) string {
	words := execWords(command, nil)
	if len(words) == 0 {
		return unknownProgram
	}
	if shells[path.Base(words[0])] {
		if script, ok := shellScript(words[1:]); ok {
			return shellProgram(script)
		}
	}
	program, _ := programOf(words)
	return program
}

func countAtJobs(ctx context.Context, root *hostfs.Tree) (int, error) {
	n := 0
	var problems []error
	for _, dir := range atSpools {
		list, err := root.ReadDir(ctx, dir)
		problems = append(problems, unlessMissing(err))
		for _, e := range list {
			if atJob.MatchString(e.Name) && e.Type == 0 {
				n++
			}
		}
	}
	return n, errors.Join(problems...)
}
