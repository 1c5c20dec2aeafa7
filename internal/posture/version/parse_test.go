// SPDX-License-Identifier: Apache-2.0

package version

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"security-exporter/internal/hostfs"
)

func TestParseCommand(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]program{
		"/usr/sbin/sshd -D":                   {},
		"java -jar a.jar":                     {kind: kindJava, path: "a.jar"},
		"java -cp a:b --add-opens x=y Main z": {kind: kindClass, path: "Main", classPath: []string{"a", "b"}},
		"java --class-path=c -Dx=y Main":      {kind: kindClass, path: "Main", classPath: []string{"c"}},
		"java -m mod/Main":                    {kind: kindClass},
		"java @args":                          {kind: kindClass},
		"java -cp":                            {kind: kindClass, classPath: []string{""}},
		"java":                                {kind: kindClass},
		"python3.12 -W x -u s.py -m y":        {kind: kindPython, path: "s.py"},
		"python3 -m http.server":              {kind: kindModule, path: "http.server"},
		"python -mflask run":                  {kind: kindModule, path: "flask"},
		"python3 -c x":                        {kind: kindPython},
		"python3 -m":                          {kind: kindPython},
		"python-daemon s.py":                  {},
		"node -r x --inspect app.js":          {kind: kindNode, path: "app.js"},
		"nodejs -e x":                         {kind: kindNode},
		"node":                                {kind: kindNode},
		"":                                    {},
	} {
		args := strings.Split(line, " ")
		want.argv0 = args[0]
		got := parseCommand("/usr/bin/"+filepath.Base(args[0]), strings.Join(args, "\x00")+"\x00")
		if got.kind != want.kind || got.path != want.path || got.argv0 != want.argv0 || !slices.Equal(got.classPath, want.classPath) {
			t.Errorf("%q: %+v, want %+v", line, got, want)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	t.Parallel()
	id, other := strings.Repeat("0a", 32), strings.Repeat("f", 64)
	for text, want := range map[string][2]string{
		"0::/system.slice/ssh.service\n":                                                                                   {"", "ssh"},
		"0::/user.slice/user-1.slice/user@1.service/app.slice/x.service/y\n":                                               {"", "x"},
		"0::/system.slice/docker-" + id + ".scope\n":                                                                       {id, ""},
		"12:pids:/docker/" + id + "\n1:name=systemd:/docker/" + id + "\n0::/\n":                                            {id, ""},
		"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope/docker-" + other + ".scope/sshd.service\n": {id, ""},
		"0::/machine.slice/libpod-" + id + ".scope/container\n":                                                            {id, ""},
		"0::/kubepods/pod1/crio-" + id + "\n":                                                                              {id, ""},
		"0::/system.slice/x.service/crio:y:" + id + "\n":                                                                   {id, "x"},
		"0::/docker/" + id[:63] + "\n":                                                                                     {"", ""},
		"0::/docker/" + strings.ToUpper(id) + "\n":                                                                         {"", ""},
		"nonsense": {"", ""},
	} {
		if c, u := parseCgroup(text); c != want[0] || u != want[1] {
			t.Errorf("%q: %q, %q, want %q", text, c, u, want)
		}
	}
}

func TestSplitImage(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string][2]string{
		"nginx":                  {"nginx", ""},
		"nginx:1.27":             {"nginx", "1.27"},
		"nginx:latest":           {"nginx", ""},
		"registry:5000/team/app": {"app", ""},
		"registry:5000/team/app:v2.1@sha256:0123": {"app", "v2.1"},
		"sha256:0123456789abcdef":                 {"", ""},
		"app@sha256:0123":                         {"app", ""},
		"app:stable":                              {"app", ""},
		"":                                        {"", ""},
	} {
		if n, tag := splitImage(ref); n != want[0] || tag != want[1] {
			t.Errorf("%q: %q, %q, want %q", ref, n, tag, want)
		}
	}
}

// Each runtime's own file, and an interpreter's package giving way to it.
func TestImage(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("a", 64)
	for file, content := range map[string]string{
		"var/lib/docker/containers/" + id + "/config.v2.json":                        `{"ID":"x","Config":{"Image":"reg:5000/shop:1.2","Env":["A=b"]}}`,
		"run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id + "/config.json": `{"annotations":{"io.kubernetes.cri.image-name":"reg/shop:1.2"}}`,
		"run/containers/storage/overlay-containers/" + id + "/userdata/config.json":  `{"annotations":{"io.kubernetes.cri-o.ImageName":"shop:1.2"}}`,
		"var/lib/containers/storage/overlay-containers/containers.json":              `[{"id":"b","metadata":"{"},{"id":"` + id + `","metadata":"{\"image-name\":\"localhost/shop:1.2\"}"}]`,
	} {
		root := t.TempDir()
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, file), []byte(content), 0o644))
		f := NewFinder(time.Now)
		f.root = hostfs.New(hostfs.Paths{Rootfs: root})
		for name, c := range map[string]struct{ s, want found }{
			"nothing":     {found{}, found{app: "shop", version: "1.2", source: Image}},
			"package":     {found{version: "9", source: "dpkg"}, found{version: "9", source: "dpkg"}},
			"application": {found{app: "x", version: "8", source: PackageJSON}, found{app: "x", version: "8", source: PackageJSON}},
			"interpreter": {found{app: "node", version: "9", source: "dpkg"}, found{app: "shop", version: "1.2", source: Image}},
		} {
			s := &subject{container: id, got: c.s, id: Identity{Exe: "/usr/bin/node"}}
			if name != "package" {
				s.program.kind = kindNode
			}
			if f.image(t.Context(), s); s.got != c.want {
				t.Errorf("%s, %s: %+v", file, name, s.got)
			}
		}
	}
}

func TestGoFound(t *testing.T) {
	t.Parallel()
	flags := func(s string) []debug.BuildSetting { return []debug.BuildSetting{{Key: "-ldflags", Value: s}} }
	module := func(p, v string) debug.Module { return debug.Module{Path: p, Version: v} }
	for name, c := range map[string]struct {
		in   buildinfo.BuildInfo
		want found
	}{
		"module":  {buildinfo.BuildInfo{Path: "ex.org/tool/v2/cmd/toold", Main: module("ex.org/tool/v2", "v2.1.0")}, found{app: "toold", version: "v2.1.0", source: Go}},
		"devel":   {buildinfo.BuildInfo{Path: "ex.org/tool/v2", Main: module("ex.org/tool/v2", "(devel)")}, found{app: "tool", source: Go}},
		"flags":   {buildinfo.BuildInfo{Path: "ex.org/x", Main: module("ex.org/x", "(devel)"), Settings: flags(`-s -w -X ex.org/x/v.Version=1.5 -X 'ex.org/x/v.Commit=77' -X=main.version=1.5`)}, found{app: "x", version: "1.5", source: Go}},
		"differ":  {buildinfo.BuildInfo{Path: "ex.org/x", Settings: flags(`-X a.Version=1.5 -X b.Version=1.6`)}, found{app: "x", source: Go}},
		"command": {buildinfo.BuildInfo{Path: "command-line-arguments", Main: module("ex.org/y", "")}, found{app: "y", source: Go}},
		"nothing": {buildinfo.BuildInfo{}, found{source: Go}},
	} {
		if got := goFound(&c.in); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	self, err := os.Open("/proc/self/exe")
	must(t, err)
	defer func() { _ = self.Close() }()
	if got, err := identifyBinary(self); err != nil || got.app != "version.test" || got.source != Go {
		t.Errorf("%+v, %v", got, err)
	}
}

// noteELF is a little ELF file with one segment of notes: a build id, then
// a package note.
func noteELF(order binary.AppendByteOrder, wide bool, desc string) []byte {
	var notes []byte
	note := func(name string, kind uint32, d string) {
		for _, v := range []uint32{uint32(len(name)), uint32(len(d)), kind} {
			notes = order.AppendUint32(notes, v)
		}
		notes = append(notes, name...)
		notes = append(notes, make([]byte, -len(notes)&3)...)
		notes = append(notes, d...)
		notes = append(notes, make([]byte, -len(notes)&3)...)
	}
	note("GNU\x00", 3, "\x01\x02\x03\x04\x05")
	note("FDO\x00", notePackage, desc)
	data := byte(elf.ELFDATA2LSB)
	if order.String() == binary.BigEndian.String() {
		data = byte(elf.ELFDATA2MSB)
	}
	var b bytes.Buffer
	ident := [16]byte{0x7f, 'E', 'L', 'F', 2, data, 1}
	size := uint64(len(notes))
	var bo binary.ByteOrder = binary.LittleEndian
	if data == byte(elf.ELFDATA2MSB) {
		bo = binary.BigEndian
	}
	if wide {
		_ = binary.Write(&b, bo, elf.Header64{Ident: ident, Type: 2, Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1})
		_ = binary.Write(&b, bo, elf.Prog64{Type: ptNote, Off: 120, Filesz: size, Align: 4})
	} else {
		ident[4] = 1
		_ = binary.Write(&b, bo, elf.Header32{Ident: ident, Type: 2, Version: 1, Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1})
		_ = binary.Write(&b, bo, elf.Prog32{Type: ptNote, Off: 84, Filesz: uint32(size), Align: 4})
	}
	return append(b.Bytes(), notes...)
}

func TestELFNote(t *testing.T) {
	t.Parallel()
	desc := `{"type":"rpm","name":"bash","version":"5.2.37-1.fc42","osCpe":"cpe:/o:x"}` + "\x00\x00"
	want := found{app: "bash", version: "5.2.37-1.fc42", source: ELFNote}
	for _, wide := range []bool{true, false} {
		for _, b := range [][]byte{noteELF(binary.LittleEndian, wide, desc), noteELF(binary.BigEndian, wide, desc)} {
			if got, err := identifyBinary(bytes.NewReader(b)); err != nil || got != want {
				t.Errorf("%+v, %v", got, err)
			}
			for cut := range b {
				_, _ = identifyBinary(bytes.NewReader(b[:cut]))
			}
		}
	}
	for _, bad := range []string{"", "{", `{"name":1}`, `{"version":"${x}"}`, `[]`} {
		if got, _ := identifyBinary(bytes.NewReader(noteELF(binary.LittleEndian, true, bad))); got.version != "" {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	// Sizes that claim more than there is.
	b := noteELF(binary.LittleEndian, true, desc)
	binary.LittleEndian.PutUint64(b[64+32:], 1<<62)
	binary.LittleEndian.PutUint32(b[120:], 0xffffffff)
	if got, _ := identifyBinary(bytes.NewReader(b)); got.version != "" {
		t.Errorf("%+v", got)
	}
}

// A binary whose section names are compressed is not given to debug/elf.
func TestELFPackedNames(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: 2, Version: 1, Shoff: 64, Ehsize: 64, Shentsize: 64, Shnum: 2, Shstrndx: 1,
	})
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{})
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{Type: uint32(elf.SHT_STRTAB), Flags: uint64(elf.SHF_COMPRESSED), Off: 192, Size: 1 << 30})
	e, err := parseELF(bytes.NewReader(b.Bytes()))
	if err != nil || !e.packedNames {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestJar(t *testing.T) {
	t.Parallel()
	pomFile := func(g, a, v string) []string {
		return []string{"META-INF/maven/" + g + "/" + a + "/pom.properties", "#x\r\ngroupId=" + g + "\r\nartifactId=" + a + "\r\nversion=" + v + "\r\n"}
	}
	manifest := func(s string) []string { return []string{"META-INF/MANIFEST.MF", s} }
	for name, c := range map[string]struct {
		file  string
		parts [][]string
		want  found
	}{
		"title with blanks": {"x.jar", [][]string{manifest("Implementation-Title: My App\nImplementation-Version: 1.2\n")}, found{app: "x", version: "1.2", source: Jar}},
		"bundle":            {"x.jar", [][]string{manifest("Bundle-Version: 3.4.5\n")}, found{app: "x", version: "3.4.5", source: Jar}},
		"placeholder":       {"x-9.1.jar", [][]string{manifest("Implementation-Version: ${project.version}\n")}, found{app: "x", version: "9.1", source: Jar}},
		"one pom":           {"x.jar", [][]string{pomFile("g", "shop", "7.0")}, found{app: "shop", version: "7.0", source: Jar}},
		"pom by name":       {"shop-8.jar", [][]string{pomFile("g", "lib", "1.0"), pomFile("h", "shop-8", "2.0")}, found{app: "shop-8", version: "2.0", source: Jar}},
		"pom by main class": {"x.jar", [][]string{manifest("Main-Class: org.springframework.boot.Launcher\nStart-Class: com.shop.Main\n"), pomFile("org.springframework.boot", "loader", "3.0"), pomFile("com.shop", "shop", "1.1")}, found{app: "shop", version: "1.1", source: Jar}},
		"no telling":        {"x.jar", [][]string{pomFile("g", "a", "1.0"), pomFile("h", "b", "2.0")}, found{app: "x", source: Jar}},
		"file name":         {"shop-1.2.3-SNAPSHOT.jar", nil, found{app: "shop", version: "1.2.3-SNAPSHOT", source: Jar}},
		"nothing":           {"shop.war", nil, found{app: "shop", source: Jar}},
	} {
		b := jarBytes(t, slices.Concat(c.parts...)...)
		got, err := identifyJar(strings.NewReader(b), int64(len(b)), c.file, "")
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	// An index above the cap is refused, whatever is in it.
	var files []string
	for range 90000 {
		files = append(files, strings.Repeat("x", 100), "")
	}
	b := jarBytes(t, files...)
	if got, err := identifyJar(strings.NewReader(b), int64(len(b)), "x-1.0.jar", ""); err == nil {
		t.Errorf("%+v from an index of %d bytes", got, len(b))
	}
}

func TestPlausible(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		" 1.2 ": "1.2", "v1": "v1", "0.0.0": "", "${v}": "", "unspecified": "", "@V1@": "", "": "", strings.Repeat("1", 200): "", "1.0.0+dirty": "1.0.0+dirty",
	} {
		if got := plausible(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParseCommand(f *testing.F) {
	f.Add("/usr/bin/java", "java\x00-cp\x00a:b\x00Main\x00")
	f.Add("/usr/bin/python3", "python3\x00-m\x00x")
	f.Fuzz(func(_ *testing.T, exe, cmdline string) { parseCommand(exe, cmdline) })
}

func FuzzIdentifyBinary(f *testing.F) {
	f.Add(noteELF(binary.LittleEndian, true, `{"name":"a","version":"1"}`))
	f.Add(noteELF(binary.BigEndian, false, `{"name":"a","version":"1"}`))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = identifyBinary(bytes.NewReader(b)) })
}

func FuzzIdentifyJar(f *testing.F) {
	f.Add([]byte(jarBytes(f, "META-INF/MANIFEST.MF", "Implementation-Version: 1\n")), "x-1.0.jar", "")
	f.Fuzz(func(_ *testing.T, b []byte, name, class string) {
		_, _ = identifyJar(bytes.NewReader(b), int64(len(b)), name, class)
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for k, v := range maps.All(parseManifest(b)) {
			if len(k)+len(v) > 4*len(b) {
				t.Errorf("%q: %q", k, v)
			}
		}
		parsePom(b)
	})
}

func FuzzParseTexts(f *testing.F) {
	f.Add("0::/system.slice/x.service\n")
	f.Add("Name: x\nVersion: 1\n\n")
	f.Add(`{"name":"x","version":"1","Config":{"Image":"a:1"}}`)
	f.Add("-X main.version=1.0")
	f.Add("[console_scripts]\nx = y\n")
	f.Fuzz(func(t *testing.T, s string) {
		if c, _ := parseCgroup(s); c != "" && len(c) != 64 {
			t.Errorf("%q", c)
		}
		for _, got := range []found{parseMetadata(s), parsePackageJSON([]byte(s)), parseNote([]byte(s))} {
			if got.version != plausible(got.version) {
				t.Errorf("%+v", got)
			}
		}
		splitImage(parseDocker([]byte(s)))
		splitImage(parseAnnotations([]byte(s)))
		parseStorage([]byte(s), s)
		linkedVersion(s)
		definesScript(s, s)
		splitJarName(s)
	})
}
