// SPDX-License-Identifier: Apache-2.0

package version

import (
	"path"
	"slices"
	"strings"
)

// kind is how a process runs its application.
type kind uint8

const (
	kindBinary kind = iota
	// kindJava runs a JAR, kindClass a class somewhere on the class path.
	kindJava
	kindClass
	// kindPython runs a script, kindModule a module by name.
	kindPython
	kindModule
	kindNode
)

// program is what an interpreter was told to run.
type program struct {
	kind kind
	// path is the script or JAR, or the name of a class or module.
	path string
	// classPath holds the entries of -cp; argv0 is the interpreter as called.
	classPath []string
	argv0     string
	cwd       string
}

// Options that take the next argument as their value: java(1), python(1),
// node(1). Others stand alone or carry it behind a "=".
func javaValues() []string {
	return []string{"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
		"--add-reads", "--add-exports", "--add-opens", "--limit-modules", "--patch-module", "--source"}
}

func pythonValues() []string { return []string{"-W", "-X", "--check-hash-based-pycs"} }

func nodeValues() []string {
	return []string{"-r", "--require", "--import", "--loader", "--experimental-loader", "--env-file", "-C", "--conditions", "--title", "--inspect-port"}
}

// parseCommand reads /proc/PID/cmdline: arguments ended by zero bytes, which
// the process may have overwritten with anything.
func parseCommand(exe, cmdline string) program {
	args := strings.Split(strings.TrimRight(cmdline, "\x00"), "\x00")
	p := program{argv0: args[0]}
	if parse := interpreter(exe); parse != nil {
		parse(&p, args[1:])
	}
	return p
}

// interpreter returns what understands the arguments of an executable, nil
// where the executable itself is the application.
func interpreter(exe string) func(p *program, args []string) {
	switch name := path.Base(exe); {
	case name == "java":
		return (*program).parseJava
	case strings.HasPrefix(name, "python") && strings.Trim(strings.TrimPrefix(name, "python"), "0123456789.") == "":
		return (*program).parsePython
	case name == "node" || name == "nodejs":
		return (*program).parseNode
	}
	return nil
}

func (p *program) parseJava(args []string) {
	p.kind = kindClass
	for i := 0; i < len(args); i++ {
		a := args[i]
		name, value, inline := strings.Cut(a, "=")
		switch {
		case a == "-jar":
			p.kind = kindJava
		case a == "-m" || a == "--module" || strings.HasPrefix(a, "@"):
			return
		case slices.Contains(javaValues(), name) && (!inline || strings.HasPrefix(name, "--")):
			if !inline && i+1 < len(args) {
				i++
				value = args[i]
			}
			if name == "-cp" || name == "-classpath" || name == "--class-path" {
				p.classPath = strings.Split(value, ":")
			}
		case !strings.HasPrefix(a, "-"):
			p.path = a
			return
		}
	}
}

func (p *program) parsePython(args []string) {
	p.kind = kindPython
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-c" || a == "-" || a == "":
			return
		case a == "-m":
			if i+1 < len(args) {
				p.kind, p.path = kindModule, args[i+1]
			}
			return
		case strings.HasPrefix(a, "-m"):
			p.kind, p.path = kindModule, a[2:]
			return
		case slices.Contains(pythonValues(), a):
			i++
		case !strings.HasPrefix(a, "-"):
			p.path = a
			return
		}
	}
}

func (p *program) parseNode(args []string) {
	p.kind = kindNode
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-e" || a == "--eval" || a == "-p" || a == "--print" || a == "-" || a == "":
			return
		case slices.Contains(nodeValues(), a):
			i++
		case !strings.HasPrefix(a, "-"):
			p.path = a
			return
		}
	}
}
