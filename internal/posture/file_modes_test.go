// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"security-exporter/internal/hostfs"
)

// The modes of a fixture are in its file modes, since a repository holds no
// owners: path, mode, uid and gid; a path that ends in / is a directory.
func TestFileModes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files to others")
	}
	golden(t, fileModesCollector, prepared(func(t *testing.T, _, rootfs string) {
		list, err := os.Open(rootfs + "/modes")
		must(t, err)
		defer list.Close()
		for lines := bufio.NewScanner(list); lines.Scan(); {
			var name string
			var mode uint32
			var uid, gid int
			if _, err := fmt.Sscanf(lines.Text(), "%s %o %d %d", &name, &mode, &uid, &gid); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			file := filepath.Join(rootfs, name)
			must(t, os.MkdirAll(filepath.Dir(file), 0o755))
			if strings.HasSuffix(name, "/") {
				must(t, os.MkdirAll(file, 0o755))
			} else if _, err := os.Lstat(file); err != nil {
				put(t, file, "")
			}
			must(t, os.Chown(file, uid, gid))
			must(t, os.Chmod(file, hostMode(mode)))
		}
	}))
}

func hostMode(mode uint32) os.FileMode {
	m := os.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]os.FileMode{0o1000: os.ModeSticky, 0o2000: os.ModeSetgid, 0o4000: os.ModeSetuid} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

func TestFileRuleAllows(t *testing.T) {
	t.Parallel()
	groups := map[string]uint32{"shadow": 42}
	shadow := fileRule{mode: 0o640, groups: []string{"shadow"}}
	passwd := fileRule{mode: 0o644}
	for _, c := range []struct {
		rule     fileRule
		perm     uint32
		uid, gid uint32
		want     bool
	}{
		{shadow, 0o640, 0, 42, true}, {shadow, 0o640, 0, 0, true}, {shadow, 0, 0, 0, true}, {shadow, 0o600, 0, 99, true},
		{shadow, 0o640, 0, 99, false}, {shadow, 0o660, 0, 42, false}, {shadow, 0o644, 0, 42, false}, {shadow, 0o600, 1, 0, false},
		{shadow, 0o4640, 0, 42, false}, {passwd, 0o644, 0, 99, true}, {passwd, 0o664, 0, 99, false}, {passwd, 0o664, 0, 0, false},
	} {
		if got := c.rule.allows(hostfs.Info{Perm: c.perm, UID: c.uid, GID: c.gid}, groups); got != c.want {
			t.Errorf("%04o %d:%d under %04o: %v", c.perm, c.uid, c.gid, c.rule.mode, got)
		}
	}
}

func TestFileRules(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, r := range fileRules {
		if seen[r.path] || r.mode&0o002 != 0 || strings.Contains(filepath.Dir(r.path), "*") {
			t.Errorf("%+v", r)
		}
		seen[r.path] = true
	}
}

func FuzzParseGroupIDs(f *testing.F) {
	f.Add("root:x:0:\nshadow:x:42:a,b\n:x:1:\nx:y\n")
	f.Fuzz(func(t *testing.T, s string) {
		ids, _ := parseGroupIDs(strings.NewReader(s))
		for name := range ids {
			if name == "" || !slices.Contains(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == ':' || r == '\r' }), name) && !strings.Contains(s, name) {
				t.Errorf("%q from %q", name, s)
			}
		}
	})
}
