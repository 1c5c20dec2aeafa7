// SPDX-License-Identifier: Apache-2.0

package packages

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// apk is a package of Alpine (https://wiki.alpinelinux.org/wiki/Apk_spec): two
// gzip members, each a tar archive, without a signature.
type apk struct {
	// info is .PKGINFO.
	info map[string]string
	// scripts are those of the control member, by name.
	scripts map[string][]byte
	// data is the second member as it is in the file.
	data []byte
}

// apkVersion is what apk takes as a version.
var apkVersion = regexp.MustCompile(`^[0-9]+([.][0-9]+)*[a-z]?(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]*)*(-r[0-9]+)?$`)

// readAPK takes a package apart and checks what apk would check.
func readAPK(t *testing.T, path, version string) apk {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var members, texts [][]byte
	// A bytes.Reader is read byte by byte, so it stands at the end of a member.
	for r := bytes.NewReader(file); r.Len() > 0; {
		start := len(file) - r.Len()
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		z.Multistream(false)
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		members, texts = append(members, file[start:len(file)-r.Len()]), append(texts, text)
	}
	if len(members) != 2 {
		t.Fatalf("%s: %d members, want 2", path, len(members))
	}
	p := apk{info: map[string]string{}, scripts: map[string][]byte{}, data: members[1]}
	control := tar.NewReader(bytes.NewReader(texts[0]))
	for first := true; ; first = false {
		header, err := control.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if first != (header.Name == ".PKGINFO") {
			t.Errorf("%s: %s is at the wrong place, .PKGINFO must be first", path, header.Name)
		}
		if p.scripts[header.Name], err = io.ReadAll(control); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(p.scripts[".PKGINFO"])) {
		if key, value, ok := strings.Cut(line, " = "); ok {
			p.info[key] = strings.TrimSpace(value)
		}
	}
	delete(p.scripts, ".PKGINFO")
	sum := sha256.Sum256(p.data)
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for key, want := range map[string]string{"pkgname": "security-exporter", "pkgver": version, "arch": arch, "license": "Apache-2.0", "datahash": hex.EncodeToString(sum[:])} {
		if p.info[key] != want {
			t.Errorf("%s: %s = %q, want %q", path, key, p.info[key], want)
		}
	}
	if !apkVersion.MatchString(p.info["pkgver"]) {
		t.Errorf("%s: apk does not take the version %s", path, p.info["pkgver"])
	}
	for name, source := range map[string]string{
		".pre-install": "preinstall.sh", ".post-install": "postinstall.sh", ".pre-upgrade": "preinstall.sh",
		".post-upgrade": "postinstall.sh", ".pre-deinstall": "preremove.sh", ".post-deinstall": "postremove.sh",
	} {
		if want, err := os.ReadFile(source); err != nil || !bytes.Equal(p.scripts[name], want) {
			t.Errorf("%s: %s is not %s (%v)", path, name, source, err)
		}
	}
	if names := slices.Sorted(maps.Keys(p.scripts)); len(names) != 6 {
		t.Errorf("%s: scripts %q", path, names)
	}
	return p
}

// TestVersions: from what git says, a version that every kind of package takes.
func TestVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3": "1.2.3", "1.2.3": "1.2.3", "v1.2.3-rc1": "1.2.3-rc1",
		"v1.2.3-5-g0123456": "0.0.0-pre", "v1.2.3-dirty": "0.0.0-pre", "0123456": "0.0.0-pre", "devel": "0.0.0-pre",
	} {
		got := strings.TrimSpace(run(t, "make", "-s", "--no-print-directory", "package-version", "VERSION="+version))
		if got != want || !apkVersion.MatchString(strings.ReplaceAll(got, "-", "_")) {
			t.Errorf("%s gives %s, want %s", version, got, want)
		}
	}
}
