// SPDX-License-Identifier: Apache-2.0

package posture

import "strings"

// sshdKeywordInfo is what is known of one keyword of sshd_config(5).
type sshdKeywordInfo struct {
	// name is the spelling of the manual.
	name string
	// every: all lines count; else the first one only, or the last
	// one with last.
	every, last bool
	// match is set where a Match block may change it: then what stands below
	// Match all replaces what stands before.
	match bool
	// raw keywords keep the line as it is, quotes and comment included.
	raw bool
}

// sshdKeywords is by lower case name. The lists are those of OpenSSH 9.2 to
// 10.0 with the patches of Debian and Fedora.
var sshdKeywords = func() map[string]sshdKeywordInfo {
	table := make(map[string]sshdKeywordInfo)
	set := func(names string, change func(*sshdKeywordInfo)) {
		for name := range strings.FieldsSeq(names) {
			k := strings.ToLower(name)
			info := table[k]
			info.name = name
			change(&info)
			table[k] = info
		}
	}
	set(sshdGlobalNames+sshdMatchNames, func(*sshdKeywordInfo) {})
	set(sshdMatchNames, func(i *sshdKeywordInfo) { i.match = true })
	set(`Port ListenAddress HostKey HostCertificate AcceptEnv AllowUsers AllowGroups DenyUsers DenyGroups Subsystem
		PerSourcePenalties`, func(i *sshdKeywordInfo) { i.every = true })
	set(`MaxStartups`, func(i *sshdKeywordInfo) { i.last = true })
	set(`ForceCommand VersionAddendum AuthorizedKeysCommand AuthorizedPrincipalsCommand`,
		func(i *sshdKeywordInfo) { i.raw = true })
	for alias, name := range sshdAliases {
		table[alias] = table[strings.ToLower(name)]
	}
	return table
}()

// sshdAliases are older names that sshd still takes.
var sshdAliases = map[string]string{
	"challengeresponseauthentication": "KbdInteractiveAuthentication",
	"dsaauthentication":               "PubkeyAuthentication",
	"hostbasedacceptedkeytypes":       "HostbasedAcceptedAlgorithms",
	"hostdsakey":                      "HostKey",
	"keepalive":                       "TCPKeepAlive",
	"pubkeyacceptedkeytypes":          "PubkeyAcceptedAlgorithms",
	"skeyauthentication":              "KbdInteractiveAuthentication",
}

const sshdGlobalNames = `
	AddressFamily Ciphers Compression DebianBanner FingerprintHash GSSAPICleanupCredentials GSSAPIEnablek5users
	GSSAPIKexAlgorithms GSSAPIKeyExchange GSSAPIStoreCredentialsOnRekey GSSAPIStrictAcceptorCheck HostCertificate
	HostKey HostKeyAgent HostKeyAlgorithms IgnoreUserKnownHosts KerberosGetAFSToken KerberosOrLocalPasswd
	KerberosTicketCleanup KerberosUniqueCCache KexAlgorithms ListenAddress LoginGraceTime MACs Match MaxStartups
	ModuliFile PermitUserEnvironment PerSourceMaxStartups PerSourceNetBlockSize PerSourcePenalties
	PerSourcePenaltyExemptList PidFile Port PrintLastLog PrintMotd Protocol SecurityKeyProvider SshdAuthPath
	SshdSessionPath StrictModes SyslogFacility TCPKeepAlive UseDNS UsePAM UsePrivilegeSeparation VersionAddendum
	XAuthLocation `

const sshdMatchNames = `
	AcceptEnv AllowAgentForwarding AllowGroups AllowStreamLocalForwarding AllowTcpForwarding AllowUsers
	AuthenticationMethods AuthorizedKeysCommand AuthorizedKeysCommandUser AuthorizedKeysFile
	AuthorizedPrincipalsCommand AuthorizedPrincipalsCommandUser AuthorizedPrincipalsFile Banner
	CASignatureAlgorithms ChannelTimeout ChrootDirectory ClientAliveCountMax ClientAliveInterval DenyGroups
	DenyUsers DisableForwarding ExposeAuthInfo ForceCommand GatewayPorts GSSAPIAuthentication
	HostbasedAcceptedAlgorithms HostbasedAuthentication HostbasedUsesNameFromPacketOnly IgnoreRhosts Include IPQoS
	KbdInteractiveAuthentication KerberosAuthentication LogLevel LogVerbose MaxAuthTries MaxSessions
	PasswordAuthentication PermitEmptyPasswords PermitListen PermitOpen PermitRootLogin PermitTTY PermitTunnel
	PermitUserRC PubkeyAcceptedAlgorithms PubkeyAuthentication PubkeyAuthOptions RDomain RefuseConnection
	RekeyLimit RequiredRSASize RevokedKeys SetEnv StreamLocalBindMask StreamLocalBindUnlink Subsystem
	TrustedUserCAKeys UnusedConnectionTimeout X11DisplayOffset X11Forwarding X11UseLocalhost `
