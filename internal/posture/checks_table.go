// SPDX-License-Identifier: Apache-2.0

package posture

// The sections of the catalogue.
const (
	sectionAccounts    = "accounts"
	sectionPassword    = "password"
	sectionPAM         = "pam"
	sectionSudo        = "sudo"
	sectionSSHD        = "sshd"
	sectionKernel      = "kernel"
	sectionFiles       = "files"
	sectionFilesystems = "filesystems"
	sectionLogging     = "logging"
)

// checkTable is the catalogue.
func checkTable() []check {
	return []check{
		{"accounts_root_only", sectionAccounts, "Only root has the user id 0.", checkRootOnly},
		{"accounts_empty_password", sectionAccounts, "No account is open without a password.", checkEmptyPassword},
		{"accounts_compat_entries", sectionAccounts, "No line of passwd, group or shadow begins with + or -, which takes in accounts from elsewhere.", checkCompatEntries},
		{"accounts_primary_group", sectionAccounts, "The primary group of every account exists.", checkPrimaryGroup},
		{"accounts_unique", sectionAccounts, "No two accounts share a name or user id, no two groups a name or group id.", checkUnique},
		{"accounts_root_group", sectionAccounts, "The primary group of root has the id 0.", checkRootGroup},
		{"accounts_system_login", sectionAccounts, "No account below UID_MIN but root has a shell that lets it work.", checkSystemLogin},
		{"accounts_home", sectionAccounts, "The home of every person exists, is theirs and is not writable for group or others.", checkHomes},

		{"password_max_age", sectionPassword, "Passwords must be changed after 365 days at most: PASS_MAX_DAYS, and every account with a password.", checkMaxAge},
		{"password_min_age", sectionPassword, "Passwords must be kept for a day at least: PASS_MIN_DAYS, and every account with a password.", checkMinAge},
		{"password_warning", sectionPassword, "Users are warned 7 days or more before: PASS_WARN_AGE, and every account with a password.", checkWarning},
		{"password_inactive", sectionPassword, "Accounts with a password close 45 days or less after it ran out.", checkInactive},
		{"password_change_past", sectionPassword, "No password was changed in the future, which would make it last for ever.", checkChangePast},
		{"password_hash", sectionPassword, "Passwords are kept with yescrypt, scrypt, bcrypt or sha512crypt.", checkHash},

		{"pam_faillock", sectionPAM, "Failed logins lock the account for a while (pam_faillock in the auth stacks of login and sshd).", checkFaillock},
		{"pam_pwquality", sectionPAM, "New passwords have 12 characters or more (pam_pwquality in the stack of passwd, minlen).", checkPwquality},
		{"pam_pwhistory", sectionPAM, "The last 5 passwords or more cannot be used again (pam_pwhistory in the stack of passwd, remember).", checkPwhistory},
		{"sudo_use_pty", sectionSudo, "sudoers sets use_pty, so that a command cannot type into its caller's terminal.", checkUsePty},
		{"sudo_logfile", sectionSudo, "sudoers sets logfile, so that there is a log of its own.", checkSudoLogfile},
		{"sudo_nopasswd_all", sectionSudo, "No account but those with the user id 0 may run every command without a password.", checkNopasswdAll},
		{"su_restricted", sectionSudo, "Only members of a group may use su (pam_wheel).", checkSuRestricted},

		{"sshd_root_login", sectionSSHD, "Root cannot log in with a password (PermitRootLogin).", sshdWordCheck("PermitRootLogin", "no", "prohibit-password", "forced-commands-only")},
		{"sshd_empty_password", sectionSSHD, "Nobody can log in with an empty password (PermitEmptyPasswords).", sshdWordCheck("PermitEmptyPasswords", "no")},
		{"sshd_password_auth", sectionSSHD, "Passwords are not accepted, keys are (PasswordAuthentication).", sshdWordCheck("PasswordAuthentication", "no")},
		{"sshd_max_auth_tries", sectionSSHD, "A connection has 4 tries at most (MaxAuthTries).", sshdRangeCheck("MaxAuthTries", 0, 4)},
		{"sshd_login_grace", sectionSSHD, "A connection has 60 seconds at most to log in (LoginGraceTime).", sshdRangeCheck("LoginGraceTime", 1, 60)},
		{"sshd_x11", sectionSSHD, "X11 is not forwarded (X11Forwarding).", sshdWordCheck("X11Forwarding", "no")},
		{"sshd_tcp_forwarding", sectionSSHD, "TCP is not forwarded (AllowTcpForwarding, DisableForwarding).", checkTCPForwarding},
		{"sshd_user_environment", sectionSSHD, "Users set no environment (PermitUserEnvironment).", sshdWordCheck("PermitUserEnvironment", "no")},
		{"sshd_client_alive", sectionSSHD, "Dead connections end: ClientAliveInterval is 1 to 900 seconds and ClientAliveCountMax not 0.", checkClientAlive},
		{"sshd_algorithms", sectionSSHD, "The configuration enables no weak cipher, MAC or key exchange.", checkAlgorithms},

		{"net_forwarding", sectionKernel, "The host forwards no packets, from any interface.",
			sysctlCheck([]string{"ipv4_forwarding", "ipv6_force_forwarding"}, "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")},
		{"net_redirects", sectionKernel, "The host neither sends nor accepts ICMP redirects, on any interface.",
			sysctlCheck([]string{"ipv4_accept_redirects", "ipv4_send_redirects", "ipv6_accept_redirects"},
				"net.ipv4.conf.all.send_redirects", "net.ipv4.conf.default.send_redirects", "net.ipv4.conf.all.accept_redirects",
				"net.ipv4.conf.default.accept_redirects", "net.ipv6.conf.all.accept_redirects", "net.ipv6.conf.default.accept_redirects")},
		{"net_source_route", sectionKernel, "The host accepts no source routes, on any interface.",
			sysctlCheck([]string{"ipv4_accept_source_route", "ipv6_accept_source_route"},
				"net.ipv4.conf.all.accept_source_route", "net.ipv4.conf.default.accept_source_route", "net.ipv6.conf.all.accept_source_route")},
		{"net_rp_filter", sectionKernel, "Packets that came the wrong way are dropped, on every interface.",
			sysctlCheck([]string{"ipv4_rp_filter"}, "net.ipv4.conf.default.rp_filter")},
		{"net_log_martians", sectionKernel, "Packets with impossible addresses are logged.", sysctlCheck(nil, "net.ipv4.conf.all.log_martians")},
		{"net_syncookies", sectionKernel, "SYN cookies are on.", sysctlCheck(nil, "net.ipv4.tcp_syncookies")},
		{"kernel_aslr", sectionKernel, "Address spaces are laid out at random, the heap too.", sysctlCheck(nil, "kernel.randomize_va_space")},

		{"files_shadow", sectionFiles, "passwd, group, shadow, gshadow and their copies have the owner and mode of file_mode_compliant.",
			fileCheck("/etc/passwd", "/etc/passwd-", "/etc/group", "/etc/group-", "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd")},
		{"files_sudoers", sectionFiles, "sudoers and sudoers.d have the owner and mode of file_mode_compliant.", fileCheck("/etc/sudoers", "/etc/sudoers.d", "/etc/sudoers.d/*")},
		{"files_sshd", sectionFiles, "The configuration and host keys of sshd have the owner and mode of file_mode_compliant.",
			fileCheck("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/*", "/etc/ssh/ssh_host_*_key", "/etc/ssh/ssh_host_*_key.pub")},
		{"files_cron", sectionFiles, "crontab and the folders of cron have the owner and mode of file_mode_compliant.",
			fileCheck("/etc/crontab", "/etc/cron.d", "/etc/cron.d/*", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly", "/var/spool/cron/crontabs")},
		{"files_grub", sectionFiles, "The configuration of GRUB has the owner and mode of file_mode_compliant.",
			fileCheck("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/grub/user.cfg", "/boot/grub2/user.cfg")},

		{"mount_tmp", sectionFilesystems, "/tmp is mounted with nodev, nosuid and noexec.", mountCheck("/tmp")},
		{"mount_dev_shm", sectionFilesystems, "/dev/shm is mounted with nodev, nosuid and noexec.", mountCheck("/dev/shm")},
		{"mount_var_tmp", sectionFilesystems, "/var/tmp is mounted with nodev, nosuid and noexec.", mountCheck("/var/tmp")},

		{"audit_enabled", sectionLogging, "Auditing is on, has a daemon, and starts with the kernel (audit=1).", checkAuditEnabled},
		{"log_persistent", sectionLogging, "Logs outlive a reboot: the journal is on disk, or a syslog daemon runs.", checkLogPersistent},
	}
}
