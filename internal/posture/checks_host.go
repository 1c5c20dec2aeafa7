// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"security-exporter/internal/hostfs"
)

// checkHost reads each model at most once in a run, when a check asks for it.
type checkHost struct {
	ctx context.Context
	in  *Input
	// homes is for what belongs to users. A home on a server that has gone
	// hangs in every run, and what hangs there must not use up what the other
	// checks may have under way.
	homes *hostfs.Tree

	accounts  func() (*accountDB, error)
	shadow    func() (shadowFileContent, error)
	loginDefs func() (map[string]string, error)
	// withPassword are the accounts that a password opens.
	withPassword func() ([]shadowEntry, error)
	sudo         func() (*sudoJudge, error)
	sshd         func() (*sshdConfig, error)
	mounts       func() (mountTable, error)
	groupIDs     func() (map[string]uint32, error)
	audit        func() (*auditState, error)
}

type shadowFileContent struct {
	entries []shadowEntry
	compat  []compatEntry
}

func newCheckHost(ctx context.Context, in *Input, audit func(context.Context) (*auditState, error)) *checkHost {
	h := &checkHost{ctx: ctx, in: in}
	h.accounts = sync.OnceValues(func() (*accountDB, error) { return readAccounts(ctx, in.Rootfs) })
	h.shadow = sync.OnceValues(func() (c shadowFileContent, err error) {
		c.entries, c.compat, err = readShadow(ctx, in.Rootfs)
		return c, err
	})
	h.withPassword = sync.OnceValues(h.readWithPassword)
	h.loginDefs = sync.OnceValues(func() (map[string]string, error) { return readLoginDefs(ctx, in.Rootfs) })
	h.sudo = sync.OnceValues(func() (*sudoJudge, error) {
		db, err := h.accounts()
		if db == nil {
			return nil, err
		}
		judge, errSudo := readSudo(ctx, in, db)
		if judge.policy == nil {
			return nil, errSudo
		}
		return judge, errors.Join(err, errSudo)
	})
	h.sshd = sync.OnceValues(func() (*sshdConfig, error) { return loadSSHD(ctx, in.Rootfs) })
	h.mounts = sync.OnceValues(func() (mountTable, error) {
		b, err := in.Procfs.ReadFile(ctx, "/1/mountinfo")
		if err != nil {
			return nil, err
		}
		return parseMounts(bytes.NewReader(b))
	})
	h.groupIDs = sync.OnceValues(func() (map[string]uint32, error) { return fileGroups(ctx, in.Rootfs) })
	h.audit = sync.OnceValues(func() (*auditState, error) { return audit(ctx) })
	return h
}

// uidRange is the ids of accounts that people have: those from
// UID_MIN to UID_MAX of login.defs(5), or of its defaults.
func (h *checkHost) uidRange() (least, most uint32, err error) {
	least, most = 1000, 60000
	settings, err := h.loginDefs()
	if errors.Is(err, hostfs.ErrNotExist) {
		err = nil
	}
	for key, into := range map[string]*uint32{"UID_MIN": &least, "UID_MAX": &most} {
		if n, ok := loginDefsNumber(settings[key]); ok && n >= 0 && n <= 1<<32-1 {
			*into = uint32(n)
		}
	}
	return least, most, err
}

// readWithPassword returns the accounts of shadow(5) that a password opens; of
// two with one name the first counts.
func (h *checkHost) readWithPassword() ([]shadowEntry, error) {
	shadow, err := h.shadow()
	seen := make(map[string]bool, len(shadow.entries))
	var out []shadowEntry
	for _, e := range shadow.entries {
		if !seen[e.name] && e.secret.state == secretHash && !e.secret.locked {
			out = append(out, e)
		}
		seen[e.name] = true
	}
	return out, err
}

// today is the day since 1970-01-01.
func (h *checkHost) today() int64 { return h.in.Now().Unix() / secondsOfDay }

// sysctlCheck wants each parameter to have a good value, or the one that the
// configuration expects, and each interface to be good as well. Parameters
// that the kernel does not have are left out; none at all is not applicable.
func sysctlCheck(interfaces []string, params ...string) func(*checkHost) (int, error) {
	return func(h *checkHost) (findings int, err error) {
		found := 0
		var problems []error
		for _, p := range expectedParams(h.in.Settings.Sysctl) {
			if !slices.Contains(params, p.name) || len(p.good) == 0 {
				continue
			}
			now, err := readSysctl(h.ctx, h.in.Procfs, p.name)
			if errors.Is(err, hostfs.ErrNotExist) {
				continue
			}
			found++
			problems = append(problems, err)
			if err == nil && !slices.Contains(p.good, now) {
				findings++
			}
		}
		if found == 0 {
			return 0, ErrNotApplicable
		}
		bad, err := h.badInterfaces(interfaces)
		return findings + bad, errors.Join(append(problems, err)...)
	}
}

// badInterfaces counts over the settings the interfaces that are not good.
func (h *checkHost) badInterfaces(settings []string) (bad int, err error) {
	var problems []error
	for _, s := range interfaceSettings() {
		if !slices.Contains(settings, s.name) || !s.expected(h.in.Settings.Sysctl) {
			continue
		}
		names, err := interfaceNames(h.ctx, h.in.Procfs, s.family)
		if err == nil {
			var n int
			n, err = s.count(h.ctx, h.in.Procfs, interfaceDir(s.family), names)
			bad += n
		}
		if !errors.Is(err, hostfs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	return bad, errors.Join(problems...)
}

// fileCheck looks at rows of fileRules. None of the files is not applicable.
func fileCheck(paths ...string) func(*checkHost) (int, error) {
	return func(h *checkHost) (findings int, err error) {
		groups, err := h.groupIDs()
		problems := []error{err}
		any := false
		for _, r := range fileRules {
			if !slices.Contains(paths, r.path) {
				continue
			}
			good, found, err := r.check(h.ctx, h.in.Rootfs, groups)
			problems = append(problems, err)
			any = any || found || err != nil
			if found && !good {
				findings++
			}
		}
		if !any {
			return 0, ErrNotApplicable
		}
		return findings, errors.Join(problems...)
	}
}

// mountCheck looks at the options of the file system that holds a directory.
func mountCheck(dir string) func(*checkHost) (int, error) {
	return func(h *checkHost) (findings int, err error) {
		if _, err := h.in.Rootfs.Stat(h.ctx, dir); err != nil {
			return 0, err
		}
		table, err := h.mounts()
		if err != nil {
			return 0, err
		}
		m, _ := table.at(dir)
		if m.id == "" {
			return 0, ErrNotApplicable
		}
		for _, o := range mountOptions {
			if !slices.Contains(m.options, o) {
				findings++
			}
		}
		return findings, nil
	}
}

func checkAuditEnabled(h *checkHost) (findings int, err error) {
	state, err := h.audit()
	if err != nil {
		return 0, auditUnsupported(err)
	}
	alive, err := state.daemonAlive(h.ctx, h.in.Root)
	problems := []error{err}
	text, err := h.in.Procfs.ReadValue(h.ctx, "/cmdline")
	problems = append(problems, err)
	value, given := parseCmdline(text)["audit"]
	for _, good := range []bool{state.Enabled > 0, alive, given && cmdlineEqual(value, "1")} {
		if !good {
			findings++
		}
	}
	return findings, errors.Join(problems...)
}

// syslogNames are the names of processes that keep a log on disk.
var syslogNames = []string{"rsyslogd", "syslog-ng", "syslogd"}

func checkLogPersistent(h *checkHost) (findings int, err error) {
	storage, err := readSystemdStorage(h.ctx, h.in.Rootfs, "journald.conf", "Journal")
	if err != nil {
		return 0, err
	}
	_, errDir := h.in.Rootfs.Stat(h.ctx, "/var/log/journal")
	_, errBooted := h.in.Rootfs.Stat(h.ctx, "/run/systemd/journal")
	if errBooted == nil && (storage == "persistent" || (storage == "" || storage == "auto") && errDir == nil) {
		return 0, nil
	}
	pids, err := h.in.Pids(h.ctx)
	if err != nil {
		return 0, err
	}
	if len(pids) == 0 {
		return 0, ErrNotApplicable // no procfs of a host
	}
	// Without it nobody takes log messages, and no process has to be looked at.
	if _, err := h.in.Rootfs.Lstat(h.ctx, "/dev/log"); err != nil {
		return 1, unlessMissing(err)
	}
	for _, pid := range pids {
		name, err := h.in.Procfs.ReadValue(h.ctx, "/"+strconv.Itoa(pid)+"/comm")
		if err == nil && slices.Contains(syslogNames, name) {
			return 0, nil
		}
	}
	return 1, nil
}
