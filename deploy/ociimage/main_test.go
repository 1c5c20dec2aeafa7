// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

const epoch = "1700000000"

// makeImage runs make image into a folder of its own and returns that.
func makeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", "image", "VERSION=v1.2.3", "REVISION=abc", "DIST="+dir, "ARCHES=amd64 arm64")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	return dir
}

// sums are the SHA-256 sums of all files of a folder.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		sum := sha256.Sum256(data)
		out[path] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestImage makes the image twice: the same bytes, and nothing in it but the
// binary of each architecture.
func TestImage(t *testing.T) {
	first, second := makeImage(t), makeImage(t)
	got := sums(t, filepath.Join(first, "oci"))
	if again := sums(t, filepath.Join(second, "oci")); !maps.Equal(got, again) {
		t.Errorf("the second run gives other files:\n%v\n%v", got, again)
	}
	// oci-layout, index.json, the index; and for each architecture manifest, configuration and layer.
	if len(got) != 3+2*3 {
		t.Errorf("%d files, want 9: %v", len(got), got)
	}
	path, err := layout.FromPath(filepath.Join(first, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	top, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}
	list, err := top.IndexManifest()
	if err != nil || len(list.Manifests) != 1 || list.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "1.2.3" {
		t.Fatalf("index.json: %+v %v", list, err)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	images, err := index.IndexManifest()
	if err != nil || len(images.Manifests) != 2 {
		t.Fatalf("index: %+v %v", images, err)
	}
	for i, arch := range []string{"amd64", "arm64"} {
		if p := images.Manifests[i].Platform; p.String() != "linux/"+arch {
			t.Errorf("platform %s, want linux/%s", p, arch)
		}
		img, err := index.Image(images.Manifests[i].Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, img, arch, filepath.Join(first, arch, program))
	}
}

func checkImage(t *testing.T, img v1.Image, arch, binary string) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != arch || config.Created.Unix() != 1700000000 {
		t.Errorf("%s: %s/%s of %v", arch, config.OS, config.Architecture, config.Created)
	}
	if want := dockerfile(t, map[string]string{"ARCH": arch, "VERSION": "1.2.3", "REVISION": "abc"}); !reflect.DeepEqual(config.Config, want) {
		t.Errorf("%s: settings %+v\nthe Dockerfile has %+v", arch, config.Config, want)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%s: %d layers, want 1 (%v)", arch, len(layers), err)
	}
	files, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	r := tar.NewReader(files)
	header, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if header.Name != program || header.Mode != 0o755 || header.Uid != 0 || header.Gid != 0 || header.ModTime.Unix() != 1700000000 {
		t.Errorf("%s: %+v", arch, header)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(binary); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: the file is not %s (%v)", arch, binary, err)
	}
	machine, err := elf.NewFile(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]; machine.Machine != want || machine.Section(".interp") != nil {
		t.Errorf("%s: a binary for %v, static: %v", arch, machine.Machine, machine.Section(".interp") == nil)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("%s: more than one file: %v", arch, err)
	}
}

// dockerfile reads the settings that deploy/Dockerfile gives to an image. It
// knows the instructions that are in there, and no others.
func dockerfile(t *testing.T, args map[string]string) v1.Config {
	t.Helper()
	data, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	config := v1.Config{ExposedPorts: map[string]struct{}{}, Labels: map[string]string{}}
	list := func(text string) (out []string) {
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return out
	}
	for line := range strings.Lines(strings.ReplaceAll(string(data), "\\\n", " ")) {
		line = os.Expand(strings.TrimSpace(line), func(name string) string { return args[name] })
		instruction, rest, _ := strings.Cut(line, " ")
		switch instruction {
		case "", "#":
		case "FROM":
			if rest != "scratch" {
				t.Errorf("FROM %s", rest)
			}
		case "ARG":
			if name, _, _ := strings.Cut(rest, "="); args[name] == "" {
				t.Errorf("ARG %s is not known here", name)
			}
		case "COPY":
			if want := "--chown=0:0 --chmod=0755 build/dist/" + args["ARCH"] + "/" + program + " /" + program; rest != want {
				t.Errorf("COPY %s, want %s", rest, want)
			}
		case "LABEL":
			for key, after, ok := strings.Cut(rest, "="); ok; key, after, ok = strings.Cut(rest, "=") {
				value, more, _ := strings.Cut(strings.TrimPrefix(after, `"`), `"`)
				config.Labels[strings.TrimSpace(key)], rest = value, more
			}
		case "USER":
			config.User = rest
		case "EXPOSE":
			config.ExposedPorts[rest] = struct{}{}
		case "ENTRYPOINT":
			config.Entrypoint = list(rest)
		case "CMD":
			config.Cmd = list(rest)
		default:
			t.Errorf("instruction %s is not known here", instruction)
		}
	}
	return config
}

func TestRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "oci")
	for _, c := range []struct {
		args  []string
		epoch string
		want  string
	}{
		{[]string{"1", "abc", out}, epoch, "want VERSION REVISION FOLDER ARCH=BINARY..., got 3 arguments"},
		{[]string{"1", "abc", out, "amd64"}, epoch, "amd64: must be ARCH=BINARY"},
		{[]string{"1", "abc", out, "amd64=x"}, "", "SOURCE_DATE_EPOCH=: must be seconds since 1970"},
		{[]string{"1", "abc", dir, "amd64=x"}, epoch, dir + ": is there already"},
		{[]string{"1", "abc", out, "amd64=" + dir + "/x"}, epoch, "open " + dir + "/x: no such file or directory"},
	} {
		if err := run(c.args, c.epoch); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.args, err, c.want)
		}
	}
	if _, err := os.Lstat(out); err == nil {
		t.Errorf("%s was made all the same", out)
	}
}
