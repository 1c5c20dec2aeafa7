// SPDX-License-Identifier: Apache-2.0

// Command verify loads every program of the given objects on the running
// kernel, one by one, and prints how many instructions the verifier went
// through, or its verdict. It attaches nothing. It needs root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

func main() {
	lines := flag.Int("lines", 1, "lines of the verifier's log to print for a program it refuses")
	only := flag.String("only", "", "the one program to load")
	on := flag.String("on", "", "constants to set to true, separated by commas")
	flag.Parse()
	for _, path := range flag.Args() {
		if err := verify(path, *only, *on, *lines); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func verify(path, only, on string, lines int) error {
	object, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for constant := range strings.SplitSeq(on, ",") {
		if v := object.Variables[constant]; v != nil {
			if err := v.Set(true); err != nil {
				return fmt.Errorf("%s: set %s: %w", path, constant, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(object.Programs)) {
		if only == "" || name == only {
			fmt.Printf("%-28s %-48s %s\n", filepath.Base(filepath.Dir(path)), name, verdict(object, name, lines))
		}
	}
	return nil
}

// verdict loads one program with maps of its own.
func verdict(object *ebpf.CollectionSpec, name string, lines int) string {
	one := object.Copy()
	for other := range one.Programs {
		if other != name {
			delete(one.Programs, other)
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{
		Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if err == nil {
		defer collection.Close()
		return processed(collection.Programs[name].VerifierLog)
	}
	var refused *ebpf.VerifierError
	if _, again := ebpf.NewCollection(one); errors.As(again, &refused) && len(refused.Log) > 0 {
		return "refused: " + strings.Join(refused.Log[max(0, len(refused.Log)-lines):], "\n")
	}
	return "refused: " + strings.ReplaceAll(err.Error(), "\n", " ")
}

// processed picks the number of instructions from "processed N insns (...)".
func processed(log string) string {
	_, rest, found := strings.Cut(log, "processed ")
	if !found {
		return "loaded"
	}
	number, _, _ := strings.Cut(rest, " ")
	return number
}
