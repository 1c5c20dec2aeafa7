// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"debug/elf"
	"debug/gosym"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// execImporters are the packages that import os/exec although nothing of it
// gets into the binary: cilium/ebpf has the trace of its own Windows tests in
// a package that it always links.
var execImporters = []string{"github.com/cilium/ebpf/internal/testutils/testmain"}

// The binary cannot run another program: no package imports os/exec, but for
// those whose use of it the linker drops, and no function of it is linked.
func TestNoExec(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-deps", "-f", `{{$p := .}}{{range .Imports}}{{if eq . "os/exec" "plugin" "C"}}{{$p.ImportPath}}{{"\n"}}{{end}}{{end}}`,
		"../../cmd/security-exporter")
	list.Env = append(os.Environ(), "CGO_ENABLED=0")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, execImporters) {
		t.Errorf("os/exec, plugin or cgo is imported by %q, want %q only", got, execImporters)
	}
	if f := execFunctions(t, binary); len(f) > 0 {
		t.Errorf("the binary contains %q", f)
	}
	// The same look at this test, which does run programs.
	if f := execFunctions(t, "/proc/self/exe"); !slices.Contains(f, "os/exec.(*Cmd).Start") {
		t.Errorf("the test itself has only %q: the functions of a binary are not found", f)
	}
}

// execFunctions lists the functions of os/exec in a binary, from the table
// that the Go runtime itself needs and that stripping leaves in.
func execFunctions(t *testing.T, path string) []string {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	section := f.Section(".gopclntab")
	if section == nil {
		t.Fatalf("%s has no .gopclntab", path)
	}
	data, err := section.Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, f.Section(".text").Addr))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, fn := range table.Funcs {
		if strings.HasPrefix(fn.Name, "os/exec.") {
			out = append(out, fn.Name)
		}
	}
	return out
}
