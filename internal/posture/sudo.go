// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"context"
	"errors"
	"slices"
	"strings"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/metric"
)

// Reads /etc/sudoers, or /usr/etc/sudoers where that is missing, and what it
// includes (sudoers(5)), for the accounts of passwd(5) and group(5). The host
// is /etc/hostname (hostname(5)) and the kernel's name. Owner and mode, for
// which sudo(8) may refuse a file, are not looked at, nor other policy
// plug-ins of sudo.conf(5), nor whether the commands exist.

func sudoCollector() Spec {
	user := metric.Open("username", "Account as in passwd(5).")
	may := metric.NewState("linux_security_account_sudo",
		"Whether sudoers allows the account at least one command (1) or none (0); absent where a source that is not read, such as LDAP, a netgroup or an address, decides.",
		user)
	nopasswd := metric.NewState("linux_security_account_sudo_nopasswd",
		"Whether sudoers allows the account at least one command without a password (1) or none (0); absent where a source that is not read decides.",
		user)
	unknown := metric.NewState("linux_security_account_sudo_unknown",
		"Accounts whose use of sudo is decided by a source that is not read; always 1.", user)
	return Spec{
		Name:      "sudo",
		Help:      "Which accounts sudoers lets run commands, and without a password.",
		Metrics:   []*metric.Metric{may, nopasswd, unknown},
		Watch:     append([]string{passwdFile, groupFile, "/etc/nsswitch.conf", "/etc/hostname"}, sudoersWatch...),
		MaxSeries: 1000,
		Collect: func(ctx context.Context, in *Input, out *metric.Batch) error {
			db, accountsErr := readAccounts(ctx, in.Rootfs)
			if db == nil {
				return accountsErr
			}
			judge, err := readSudo(ctx, in, db)
			if judge.policy == nil {
				return err
			}
			verdicts, timeout := judgeAll(ctx, db, judge)
			if timeout != nil {
				return timeout
			}
			for _, a := range verdicts {
				if a.verdict.any == answerUnknown {
					out.Add(unknown, 1, a.name)
				} else {
					out.Bool(may, a.verdict.any == answerYes, a.name)
				}
				if a.verdict.nopasswd != answerUnknown {
					out.Bool(nopasswd, a.verdict.nopasswd == answerYes, a.name)
				}
			}
			return Partial(errors.Join(accountsErr, err))
		},
	}
}

type accountVerdict struct {
	name    string
	verdict sudoVerdict
}

// judgeAll returns the accounts with what they may do, those who may most
// first: they are to be seen where the series do not suffice for all.
func judgeAll(ctx context.Context, db *accountDB, judge *sudoJudge) ([]accountVerdict, error) {
	out := make([]accountVerdict, 0, len(db.users))
	for i, u := range db.users {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if db.userByName[u.name] == i {
			out = append(out, accountVerdict{u.name, judge.user(u.name)})
		}
	}
	slices.SortStableFunc(out, func(a, b accountVerdict) int {
		return 2*(int(b.verdict.any)-int(a.verdict.any)) + int(b.verdict.nopasswd) - int(a.verdict.nopasswd)
	})
	return out, nil
}

// readSudo returns the judge of the host's policy. Its policy is nil without
// sudoers: with hostfs.ErrNotExist nobody may do anything that other sources
// do not allow, with another error every answer is unknown.
func readSudo(ctx context.Context, in *Input, db *accountDB) (*sudoJudge, error) {
	hosts := hostNames(ctx, in)
	short, _, _ := strings.Cut(hosts[0], ".")
	policy, err := readSudoers(ctx, in.Rootfs, short)
	if policy == nil {
		none := &sudoJudge{db: db}
		if !errors.Is(err, hostfs.ErrNotExist) || db.outside("sudoers") {
			none.otherwise = answerUnknown
		}
		return none, err
	}
	judge, limit := newSudoJudge(policy, db, hosts, in.Now())
	return judge, errors.Join(err, limit)
}

// hostNames are the names of the host: the configured one, and the kernel's,
// which in a container may be the container's. There is at least one.
func hostNames(ctx context.Context, in *Input) []string {
	var names []string
	if name, err := in.Rootfs.ReadValue(ctx, "/etc/hostname"); err == nil && name != "" {
		names = append(names, strings.Fields(name)[0])
	}
	if name, err := in.Procfs.ReadValue(ctx, "/sys/kernel/hostname"); err == nil && name != "" && !slices.Contains(names, name) {
		names = append(names, name)
	}
	if len(names) == 0 {
		names = []string{"localhost"}
	}
	return names
}
