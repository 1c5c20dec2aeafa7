// SPDX-License-Identifier: Apache-2.0

package version

import (
	"archive/zip"
	"cmp"
	"context"
	"io"
	"os"
	"path"
	"regexp"
	"strings"

	"security-exporter/internal/hostfs"
)

// JAR files: META-INF/MANIFEST.MF (JAR File Specification), what Maven adds
// below META-INF/maven, and the name of the file.

const (
	// maxIndex is the most that is read of an archive, in bytes: nearly all of
	// it is the index, which for large applications takes a few MiB.
	maxIndex = 8 << 20
	maxEntry = hostfs.ValueLimit
	// maxJars is how many archives of a class path are opened.
	maxJars = 256
)

// readJar identifies a JAR. With a class, one that does not contain it is
// nothing.
func readJar(ctx context.Context, root *hostfs.Tree, name, class string) found {
	got, err := hostfs.View(ctx, root, name, func(f *os.File, i hostfs.Info) (found, error) {
		return identifyJar(f, i.Size, path.Base(name), class)
	})
	if err != nil {
		return found{}
	}
	return got
}

func identifyJar(file io.ReaderAt, size int64, name, class string) (found, error) {
	z, err := zip.NewReader(&cappedReader{file, maxIndex + MaxRead}, size)
	if err != nil {
		return found{}, err
	}
	var manifest map[string]string
	var poms []pom
	has := class == ""
	for _, f := range z.File {
		switch {
		case f.Name == "META-INF/MANIFEST.MF" && manifest == nil:
			b, err := readEntry(f)
			if err != nil {
				return found{}, err
			}
			manifest = parseManifest(b)
		case strings.HasPrefix(f.Name, "META-INF/maven/") && strings.HasSuffix(f.Name, "/pom.properties") && len(poms) < maxJars:
			b, err := readEntry(f)
			if err != nil {
				return found{}, err
			}
			poms = append(poms, parsePom(b))
		case f.Name == class:
			has = true
		}
	}
	if !has {
		return found{}, nil
	}
	return jarFound(manifest, poms, name, class), nil
}

// readEntry unpacks a small file of an archive. A larger one is not what it
// is said to be.
func readEntry(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, maxEntry+1))
	if len(b) > maxEntry {
		return nil, errCap
	}
	return b, err
}

func jarFound(manifest map[string]string, poms []pom, name, class string) found {
	app, version := splitJarName(name)
	got := found{app: app, source: Jar}
	if title := manifest["implementation-title"]; title != "" && !strings.ContainsAny(title, " ${}:/") {
		got.app = title
	}
	got.version = cmp.Or(plausible(manifest["implementation-version"]), plausible(manifest["bundle-version"]))
	if got.version != "" {
		return got
	}
	main := cmp.Or(manifest["start-class"], strings.ReplaceAll(strings.TrimSuffix(class, ".class"), "/", "."), manifest["main-class"])
	if p, ok := choosePom(poms, main, app); ok && plausible(p.version) != "" {
		return found{app: p.artifact, version: plausible(p.version), source: Jar}
	}
	got.version = version
	return got
}

// choosePom picks the one description among those of bundled libraries that
// is the application's: the only one, the one the file is named after, or the
// one whose group the main class belongs to.
func choosePom(poms []pom, main, app string) (pom, bool) {
	if len(poms) == 1 {
		return poms[0], true
	}
	var best []pom
	for _, p := range poms {
		if p.artifact == app {
			return p, true
		}
		if p.group == "" || !strings.HasPrefix(main, p.group+".") {
			continue
		}
		if len(best) > 0 && len(p.group) > len(best[0].group) {
			best = nil
		}
		if len(best) == 0 || len(p.group) == len(best[0].group) {
			best = append(best, p)
		}
	}
	if len(best) != 1 {
		return pom{}, false
	}
	return best[0], true
}

// parseManifest returns the main attributes by lower-case name: lines end in
// CR, LF or both, a line that begins with a blank continues the one before,
// and the first empty line ends the section.
func parseManifest(b []byte) map[string]string {
	text := strings.ReplaceAll(strings.ReplaceAll(string(b), "\r\n", "\n"), "\r", "\n")
	out := make(map[string]string)
	last := ""
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			break
		}
		if line[0] == ' ' {
			if last != "" {
				out[last] += line[1:]
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if last = ""; ok {
			last = strings.ToLower(name)
			out[last] = strings.TrimPrefix(value, " ")
		}
	}
	return out
}

type pom struct{ group, artifact, version string }

// parsePom reads the three lines Maven writes into pom.properties.
func parsePom(b []byte) pom {
	var p pom
	for line := range strings.SplitSeq(string(b), "\n") {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch strings.TrimSpace(name) {
		case "groupId":
			p.group = strings.TrimSpace(value)
		case "artifactId":
			p.artifact = strings.TrimSpace(value)
		case "version":
			p.version = strings.TrimSpace(value)
		}
	}
	return p
}

// splitJarName takes name-1.2.3.jar apart. Without a version the whole is the
// name.
func splitJarName(file string) (name, version string) {
	base := strings.TrimSuffix(strings.TrimSuffix(file, ".jar"), ".war")
	m := regexp.MustCompile(`^(.+?)-v?([0-9]+(?:\.[0-9A-Za-z]+)+(?:[-+.][0-9A-Za-z.+-]+)?)$`).FindStringSubmatch(base)
	if m == nil {
		return base, ""
	}
	return m[1], plausible(m[2])
}

// findClass identifies the archive of the class path that has the main class.
func findClass(ctx context.Context, root *hostfs.Tree, p program) found {
	class := strings.ReplaceAll(p.path, ".", "/") + ".class"
	opened := 0
	for _, entry := range p.classPath {
		if entry == "" {
			continue
		}
		if !path.IsAbs(entry) {
			entry = path.Join(p.cwd, entry)
		}
		jars := []string{entry}
		if path.Base(entry) == "*" {
			jars, _ = root.Glob(ctx, path.Dir(entry)+"/*.jar")
		}
		for _, jar := range jars {
			if !strings.HasSuffix(jar, ".jar") {
				continue
			}
			if opened++; opened > maxJars || ctx.Err() != nil {
				return found{}
			}
			if got := readJar(ctx, root, jar, class); got.source != "" {
				return got
			}
		}
	}
	return found{}
}
