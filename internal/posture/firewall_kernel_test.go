// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"security-exporter/internal/hostfs"
	"security-exporter/internal/testkit"
)

// needsRoot skips a test that makes namespaces or changes the kernel, and one
// whose tools are missing.
func needsRoot(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make namespaces")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			testkit.Missing(t, "%s is missing: install it", tool)
		}
	}
}

// netNS starts a process that does nothing in network and mount namespaces of
// its own. It ends with the test.
func netNS(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	// The child is in its namespaces before it executes sleep, but the mounts
	// are shared with ours until this.
	run(t, cmd.Process.Pid, "mount --make-rprivate /")
	return cmd.Process.Pid
}

// run gives a script to sh in the namespaces of a process.
func run(t *testing.T, pid int, script string) {
	t.Helper()
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "-m", "sh", "-ec", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v: %s", script, err, out)
	}
}

// describe renders what a rule set does, and how many rules there are.
func (s *firewallState) describe() string {
	var active, counts []string
	for _, kind := range firewallTypes {
		if s.active[kind] {
			active = append(active, kind)
		}
	}
	for _, n := range s.counts {
		counts = append(counts, fmt.Sprintf("%s %s %d", n.family, n.table, n.rules))
	}
	slices.Sort(counts)
	return fmt.Sprintf("active=%s ip=%v ip6=%v rules=%s", strings.Join(active, ","), s.dropsIPv4, s.dropsIPv6, strings.Join(counts, ","))
}

// firewallIn is what the collector sees for the network namespace of pid.
func firewallIn(t *testing.T, rules *loadedRules) string {
	t.Helper()
	tables, err := rules.read(t.Context(), hostfs.New(hostfs.Paths{}))
	if err != nil {
		t.Fatal(err)
	}
	return tables.state().describe()
}

func TestFirewallNftables(t *testing.T) {
	t.Parallel()
	needsRoot(t, "nft", "nsenter")
	for _, c := range []struct{ name, rules, want string }{
		{"empty", "", "active= ip=false ip6=false rules="},
		{"policy drop", `table inet filter { chain input { type filter hook input priority 0; policy drop; iif lo accept; ct state established,related accept; }
			chain forward { type filter hook forward priority 0; policy drop; } }`,
			"active=nftables ip=true ip6=true rules=inet filter 2"},
		{"one drop rule", `table ip t { chain in { type filter hook input priority 0; policy accept; tcp dport 23 drop; } }`,
			"active=nftables ip=false ip6=false rules=ip t 1"},
		{"last rule rejects", `table ip6 t { chain in { type filter hook input priority 0; policy accept; tcp dport 22 accept; counter log reject with icmpv6 admin-prohibited; } }`,
			"active=nftables ip=false ip6=true rules=ip6 t 2"},
		{"accept before drop", `table inet t { chain in { type filter hook input priority 0; policy drop; accept; } }`,
			"active=nftables ip=false ip6=false rules=inet t 1"},
		{"only accept", `table inet t { chain in { type filter hook input priority 0; policy accept; tcp dport 22 accept; } }`,
			"active= ip=false ip6=false rules=inet t 1"},
		{"other hooks do not count", `table inet t { chain out { type filter hook output priority 0; policy drop; } chain fw { type filter hook forward priority 0; policy drop; drop; }
			chain pre { type nat hook prerouting priority -100; policy accept; } }`,
			"active= ip=false ip6=false rules=inet t 1"},
		{"unreachable drop", `table inet t { chain lost { drop; } chain in { type filter hook input priority 0; policy accept; } }`,
			"active= ip=false ip6=false rules=inet t 1"},
		{"jump and goto", `table inet t { chain end { counter; drop; } chain mid { tcp dport 22 accept; goto end; } chain in { type filter hook input priority 0; policy accept; jump mid; accept; } }`,
			"active=nftables ip=true ip6=true rules=inet t 6"},
		{"return ends the chain", `table inet t { chain mid { return; drop; } chain in { type filter hook input priority 0; policy accept; jump mid; } }`,
			"active=nftables ip=false ip6=false rules=inet t 3"},
		{"conditional jump", `table inet t { chain mid { drop; } chain in { type filter hook input priority 0; policy accept; iifname "eth0" jump mid; } }`,
			"active=nftables ip=false ip6=false rules=inet t 2"},
		{"anonymous verdict map", `table inet t { chain in { type filter hook input priority 0; policy accept; ct state vmap { established : accept, invalid : drop }; } }`,
			"active=nftables ip=false ip6=false rules=inet t 1"},
		{"named verdict map of jumps", `table inet t { map m { type inet_service : verdict; elements = { 22 : jump ssh, 80 : accept } } chain ssh { drop; } chain in { type filter hook input priority 0; policy accept; tcp dport vmap @m; } }`,
			"active=nftables ip=false ip6=false rules=inet t 2"},
		{"set lookups are no maps", `table inet t { set s { type inet_service; elements = { 22 } } chain in { type filter hook input priority 0; policy accept; tcp dport @s accept; } }`,
			"active= ip=false ip6=false rules=inet t 1"},
		{"drop behind a conditional return", `table inet t { chain other { ip saddr 192.0.2.1 return; drop; } chain in { type filter hook input priority 0; policy accept; jump other; } }`,
			"active=nftables ip=false ip6=false rules=inet t 3"},
		{"conditional return in the base chain", `table inet t { chain in { type filter hook input priority 0; policy accept; ip saddr 192.0.2.1 return; drop; } }`,
			"active=nftables ip=true ip6=true rules=inet t 2"},
		{"limit is a condition", `table inet t { chain in { type filter hook input priority 0; policy accept; limit rate over 10/second drop; } }`,
			"active=nftables ip=false ip6=false rules=inet t 1"},
		{"dormant", `table inet t { flags dormant; chain in { type filter hook input priority 0; policy drop; } }`,
			"active= ip=false ip6=false rules="},
		{"container networking", `table ip kube-proxy { chain in { type filter hook input priority 0; policy accept; drop; } }
			table ip filter { chain KUBE-FIREWALL { drop; } chain LIBVIRT_INP { accept; } chain INPUT { type filter hook input priority 0; policy accept; jump LIBVIRT_INP; jump KUBE-FIREWALL; } }`,
			"active= ip=false ip6=false rules=ip filter 4,ip kube-proxy 1"},
		{"firewalld", `table inet firewalld { chain filter_IN_public { tcp dport 22 accept; } chain filter_INPUT_ZONES { goto filter_IN_public; }
			chain filter_INPUT { type filter hook input priority 10; policy accept; ct state established accept; jump filter_INPUT_ZONES; ct state invalid drop; reject with icmpx type admin-prohibited; } }`,
			"active=firewalld,nftables ip=true ip6=true rules=inet firewalld 6"},
		{"bridge and netdev", `table bridge b { chain in { type filter hook input priority 0; policy drop; } } table netdev n { chain c { drop; } }`,
			"active= ip=false ip6=false rules=netdev n 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pid := netNS(t)
			cmd := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-n", "nft", "-f", "-")
			// Version 1.0 wants a line end between blocks.
			cmd.Stdin = strings.NewReader(strings.ReplaceAll(c.rules, "} ", "}\n"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("nft: %v: %s", err, out)
			}
			if got := firewallIn(t, &loadedRules{pid: pid}); got != zeroTables(c.want, got) {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// zeroTables leaves empty tables out of the comparison: they are counted with
// 0 rules, which says nothing about a case.
func zeroTables(want, got string) string {
	head, list, _ := strings.Cut(got, "rules=")
	var counts []string
	for _, n := range strings.Split(list, ",") {
		if !strings.HasSuffix(n, " 0") {
			counts = append(counts, n)
		}
	}
	if head+"rules="+strings.Join(counts, ",") == want {
		return got
	}
	return want
}

// The rules are read again when they change, and only then.
func TestFirewallGeneration(t *testing.T) {
	t.Parallel()
	needsRoot(t, "nft", "nsenter")
	pid := netNS(t)
	rules := &loadedRules{pid: pid}
	run(t, pid, "nft add table inet t; nft add chain inet t in '{ type filter hook input priority 0; policy accept; }'")
	if got, want := firewallIn(t, rules), "active= ip=false ip6=false rules=inet t 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	first := rules.nft.tables[0]
	firewallIn(t, rules)
	if rules.nft.tables[0] != first {
		t.Error("read again without a change")
	}
	run(t, pid, "nft add rule inet t in drop")
	if got, want := firewallIn(t, rules), "active=nftables ip=true ip6=true rules=inet t 1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestFirewallIptables(t *testing.T) {
	t.Parallel()
	const rules = `-P INPUT DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -m comment --comment hello -p tcp --dport 22 -j ACCEPT
-A OUTPUT -j ACCEPT`
	for _, c := range []struct {
		name, rules, want string
		six               bool
	}{
		{"policy", rules, "active=iptables ip=true ip6=false rules=ip filter 3", false},
		{"policy IPv6", rules, "active=iptables ip=false ip6=true rules=ip6 filter 3", true},
		{"last rule", "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -m comment --comment rest -j REJECT",
			"active=iptables ip=true ip6=false rules=ip filter 2", false},
		{"last rule IPv6", "-A INPUT -p tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP",
			"active=iptables ip=false ip6=true rules=ip6 filter 2", true},
		{"conditional drop", "-A INPUT -p tcp --dport 23 -j DROP\n-A INPUT -s 192.0.2.0/24 -j REJECT",
			"active=iptables ip=false ip6=false rules=ip filter 2", false},
		{"chains", "-N a\n-N b\n-A a -p tcp --dport 22 -j ACCEPT\n-A a -g b\n-A b -m limit --limit 1/s -j LOG\n-A b -j DROP\n-A INPUT -j a\n-A INPUT -j ACCEPT",
			"active=iptables ip=true ip6=false rules=ip filter 6", false},
		{"return", "-N a\n-A a -j RETURN\n-A a -j DROP\n-A INPUT -j a", "active=iptables ip=false ip6=false rules=ip filter 3", false},
		{"forwarding only", "-P FORWARD DROP\n-N DOCKER-USER\n-A DOCKER-USER -j DROP\n-A FORWARD -j DOCKER-USER",
			"active= ip=false ip6=false rules=ip filter 2", false},
		{"kube-proxy", "-N KUBE-FIREWALL\n-A KUBE-FIREWALL -j DROP\n-A INPUT -j KUBE-FIREWALL",
			"active= ip=false ip6=false rules=ip filter 2", false},
		{"nat", "-t nat -A INPUT -j ACCEPT", "active= ip=false ip6=false rules=ip nat 1", false},
		{"firewalld", "-N INPUT_ZONES\n-A INPUT -j INPUT_ZONES\n-A INPUT -j REJECT",
			"active=firewalld,iptables ip=true ip6=false rules=ip filter 2", false},
		{"no rules", "-L", "active= ip=false ip6=false rules=", false},
	} {
		for _, backend := range []string{"legacy", "nft"} {
			t.Run(c.name+"/"+backend, func(t *testing.T) {
				t.Parallel()
				tool := "iptables-" + backend
				if c.six {
					tool = "ip6tables-" + backend
				}
				needsRoot(t, tool, "nsenter")
				pid := netNS(t)
				var script strings.Builder
				for line := range strings.SplitSeq(c.rules, "\n") {
					fmt.Fprintf(&script, "%s -w %s\n", tool, line)
				}
				run(t, pid, script.String())
				if got := firewallIn(t, &loadedRules{pid: pid}); got != zeroTables(c.want, got) {
					t.Errorf("%s\nwant %s", got, c.want)
				}
			})
		}
	}
}

// ufw in namespaces of its own, with a copy of its configuration.
func TestFirewallUfw(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"legacy", "nft"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			needsRoot(t, "ufw", "iptables-"+backend, "nsenter")
			pid := netNS(t)
			etc := t.TempDir()
			script := fmt.Sprintf(`cp -r /etc/ufw %[1]s/ufw; cp -r /etc/default %[1]s/default
mount --bind %[1]s/ufw /etc/ufw; mount --bind %[1]s/default /etc/default; mount -t tmpfs none /run
for f in iptables ip6tables; do for s in "" -restore -save; do
	mount --bind "$(readlink -f "$(command -v $f-%[2]s$s)")" "$(readlink -f "$(command -v $f$s)")" 2>/dev/null || true
done; done`, etc, backend)
			run(t, pid, script)
			rules := &loadedRules{pid: pid}
			if got := firewallIn(t, rules); !strings.HasPrefix(got, "active= ") {
				t.Errorf("before: %s", got)
			}
			run(t, pid, "ufw --force enable; ufw allow 22/tcp")
			got := firewallIn(t, rules)
			if want := "active=ufw,iptables ip=true ip6=true "; !strings.HasPrefix(got, want) {
				t.Errorf("enabled: %s, want %s", got, want)
			}
			conf, err := os.Open(etc + "/ufw/ufw.conf")
			must(t, err)
			defer conf.Close()
			if enabled, err := parseUfwConf(conf); !enabled || err != nil {
				t.Errorf("ufw.conf: enabled %v, %v", enabled, err)
			}
			run(t, pid, "ufw default allow incoming")
			if got, want := firewallIn(t, rules), "active=ufw,iptables ip=false ip6=false "; !strings.HasPrefix(got, want) {
				t.Errorf("allow incoming: %s, want %s", got, want)
			}
			run(t, pid, "ufw disable")
			if got, want := firewallIn(t, rules), "active= ip=false ip6=false "; !strings.HasPrefix(got, want) {
				t.Errorf("disabled: %s, want %s", got, want)
			}
		})
	}
}

// A namespace that may not be entered is an error, not an empty firewall.
func TestFirewallDenied(t *testing.T) {
	t.Parallel()
	needsRoot(t, "sleep")
	pid := netNS(t)
	err := onOwnThread(func() error {
		none := []unix.CapUserData{{}, {}}
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			return err
		}
		return enterNetNS(hostfs.New(hostfs.Paths{}), pid)
	})
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		t.Errorf("entered without any capability: %v", err)
	}
}

// The main thread never enters a namespace: it would stay in it.
func TestOnOwnThread(t *testing.T) {
	t.Parallel()
	for range 200 {
		if err := onOwnThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("main thread")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}
