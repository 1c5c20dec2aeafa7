// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"maps"
	"os"
	"strings"
	"testing"
)

func TestKernel(t *testing.T) {
	t.Parallel()
	golden(t, kernelCollector, prepared(func(t *testing.T, name, rootfs string) {
		// The variables are binary: attributes, then the value.
		dir := rootfs + "/sys/firmware/efi/efivars"
		variable := func(name, value string) {
			put(t, dir+"/"+name+"-"+efiGlobal, "\x06\x00\x00\x00"+value)
		}
		switch name {
		case "fedora-secure-boot":
			must(t, os.MkdirAll(dir, 0o755))
			variable("SecureBoot", "\x01")
			variable("SetupMode", "\x00")
		case "setup-mode":
			must(t, os.MkdirAll(dir, 0o755))
			variable("SecureBoot", "\x01")
			variable("SetupMode", "\x01")
		case "broken":
			must(t, os.MkdirAll(dir, 0o755))
			variable("SecureBoot", "")
		}
	}))
}

func TestVulnerabilityState(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Not affected":    "not_affected",
		"Mitigation: PTI": "mitigation",
		"Mitigation: Clear CPU buffers; SMT vulnerable": "mitigation",
		"Vulnerable":                         "vulnerable",
		"Vulnerable: Safe RET, no microcode": "vulnerable",
		"KVM: Mitigation: Split huge pages":  "mitigation",
		"KVM: Vulnerable":                    "vulnerable",
		"Processor vulnerable":               "vulnerable",
		"Unknown: No mitigations":            "unknown",
		"":                                   "unknown",
	} {
		if got := vulnerabilityState(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseLockdown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[none] integrity confidentiality": "none", "none [integrity] confidentiality": "integrity",
		"none integrity [confidentiality]": "confidentiality", "": "", "[": "", "[x]": "",
	} {
		if got := parseLockdown(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestParseCmdline(t *testing.T) {
	t.Parallel()
	got := parseCmdline("quiet audit=0 audit=1  init-on-alloc=1 dyndbg=\"file x +p\" \"a b=c\" mitigations=auto,nosmt -- selinux=0\n")
	want := map[string]string{
		"quiet": "", "audit": "1", "init_on_alloc": "1", "dyndbg": "file x +p", "a b": "c", "mitigations": "auto,nosmt",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func FuzzParseKernel(f *testing.F) {
	f.Add("BOOT_IMAGE=/vmlinuz root=UUID=x ro \"a b\" -- init")
	f.Add("none [integrity] confidentiality")
	f.Fuzz(func(t *testing.T, s string) {
		for k := range parseCmdline(s) {
			if strings.ContainsAny(k, `"-`) {
				t.Errorf("%q from %q", k, s)
			}
		}
		parseLockdown(s)
		vulnerabilityState(s)
	})
}
