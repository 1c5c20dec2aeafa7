// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"maps"
	"strings"
	"testing"
)

func TestSelinux(t *testing.T) {
	t.Parallel()
	golden(t, selinuxCollector)
}

func TestParseSelinuxConfig(t *testing.T) {
	t.Parallel()
	got, err := parseSelinuxConfig(strings.NewReader("# SELINUX=no\nSELINUX= Enforcing \nSELINUX=disabled\n SELINUXTYPE=mls\nSELINUXTYPE=targeted\njunk\n=x\n"))
	if want := map[string]string{"SELINUX": "Enforcing", "SELINUXTYPE": "targeted"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzParseSelinuxConfig(f *testing.F) {
	f.Add("SELINUX=enforcing\nSELINUXTYPE=targeted\n")
	f.Fuzz(func(t *testing.T, s string) {
		settings, _ := parseSelinuxConfig(strings.NewReader(s))
		for k, v := range settings {
			if !isShellName(k) || strings.TrimSpace(v) != v {
				t.Errorf("%q=%q from %q", k, v, s)
			}
		}
	})
}

func TestApparmor(t *testing.T) {
	t.Parallel()
	golden(t, apparmorCollector)
}

func TestParseApparmorProfiles(t *testing.T) {
	t.Parallel()
	got, err := parseApparmorProfiles(strings.NewReader("/usr/bin/man (enforce)\nlibreoffice (odd) name (complain)\n:ns://x (kill)\nnew (sandboxed)\nno mode\n (enforce)\n"))
	if want := map[string]int{"enforce": 1, "complain": 1, "kill": 1, "other": 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func FuzzParseApparmorProfiles(f *testing.F) {
	f.Add("/usr/bin/man (enforce)\nlsb_release (complain)\n")
	f.Fuzz(func(t *testing.T, s string) {
		modes, _ := parseApparmorProfiles(strings.NewReader(s))
		n := 0
		for _, m := range modes {
			n += m
		}
		if n > strings.Count(s, "(") {
			t.Errorf("%v from %q", modes, s)
		}
	})
}

func TestSelinuxConfigured(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"enforcing": "enforcing", "Permissive": "permissive", "disabled # for now": "disabled", "enforcingly": "enforcing", "": "", "1": "",
	} {
		if got := selinuxConfigured(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}
