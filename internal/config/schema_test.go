// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v3"
)

// schemaOf returns what checks a document against the schema. ok is false if
// the document is no YAML that JSON could hold, so that no schema is asked.
func schemaOf(t *testing.T) func(document []byte) (valid error, ok bool) {
	t.Helper()
	var b bytes.Buffer
	if err := WriteSchema(&b, testKnown()); err != nil {
		t.Fatal(err)
	}
	var schema jsonschema.Schema
	if err := json.Unmarshal(b.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return func(document []byte) (error, bool) {
		var v any
		if err := yaml.Unmarshal(document, &v); err != nil {
			return nil, false
		}
		text, err := json.Marshal(v)
		if err != nil {
			return nil, false
		}
		var instance any
		if err := json.Unmarshal(text, &instance); err != nil {
			t.Fatal(err)
		}
		return resolved.Validate(instance), true
	}
}

// inexpressible are the refusals of badFiles that no schema can make.
var inexpressible = []string{
	"alias", "alias as rule", "merge key", "second document",
	"path twice", "directory twice", "off without default", "off with defaults off", "too many together",
	"interval too short", "interval too long",
}

// The schema takes the example and refuses what the parser refuses.
func TestSchema(t *testing.T) {
	t.Parallel()
	validate := schemaOf(t)
	example, err := os.ReadFile("../../docs/config.example.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{
		string(example), "", "~\n", "file_access:\nchecks:\nsysctl:\ncollectors:\n", "file_access: {defaults: false, rules: }\n",
		"file_access: {rules: [{path: /a, read: , write: info}]}\n", "collectors: {ports: {interval: 1h30m}, accounts: {}}\n",
		"sysctl: {expect: {net/ipv4/conf/eth0.1/rp_filter: 1, kernel.core_pattern: \"|/bin/false\"}}\n",
	} {
		if _, err := parseFile("c.yml", []byte(good), testKnown()); err != nil {
			t.Errorf("the parser refuses %q: %v", good, err)
		}
		if err, ok := validate([]byte(good)); err != nil || !ok {
			t.Errorf("the schema refuses %q: %v", good, err)
		}
	}
	var asked int
	for _, c := range badFiles() {
		err, ok := validate([]byte(c.in))
		if !ok {
			continue
		}
		asked++
		if refused := err != nil; refused == slices.Contains(inexpressible, c.name) {
			t.Errorf("%s: the schema says %v of %q", c.name, err, shorten(c.in))
		}
	}
	if asked < 40 {
		t.Errorf("%d documents were checked", asked)
	}
}

func TestSchemaPaths(t *testing.T) {
	t.Parallel()
	validate := schemaOf(t)
	check := func(path string) error {
		document, err := json.Marshal(map[string]any{"file_access": map[string]any{"rules": []any{map[string]any{"path": path, "read": "info"}}}})
		if err != nil {
			t.Fatal(err)
		}
		err, _ = validate(document)
		return err
	}
	for _, p := range goodPaths() {
		if err := check(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for p := range badPaths() {
		if check(p) == nil {
			t.Errorf("the schema accepts %q", shorten(p))
		}
	}
	deepest := strings.Repeat("/a", maxPathDepth)
	if err := check(deepest); err != nil {
		t.Errorf("%s: %v", deepest, err)
	}
	if check(deepest+"/a") == nil {
		t.Errorf("the schema accepts %s/a", deepest)
	}
}

// Reread gives the new file whole, or nothing and the old one untouched.
func TestReread(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("file_access: {defaults: false, rules: [{path: /a, read: info}]}\nsysctl: {expect: {kernel.sysrq: 1}}\ncollectors: {ports: {interval: 7s}}\n")
	c, err := Parse([]string{"--config.file=" + path, "--web.enable-lifecycle"}, testKnown(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Lifecycle || c.File != path || c.FileHash != "83834f84f77f8ae3" {
		t.Errorf("lifecycle %v, file %s, hash %s", c.Lifecycle, c.File, c.FileHash)
	}
	before := *c
	write("checks: {waive: {sshd_x11: why}}\nfile_access: {rules: [{path: b}]}\n")
	if next, err := c.Reread(testKnown()); next != nil || err == nil || err.Error() != path+`:2: file_access.rules[0].path: "b" must begin with / or, for every home directory, ~/` {
		t.Errorf("%v, %v", next, err)
	}
	if !reflect.DeepEqual(*c, before) {
		t.Error("a file that was refused has changed the configuration")
	}
	write("checks: {waive: {sshd_x11: why}}\n")
	next, err := c.Reread(testKnown())
	if err != nil {
		t.Fatal(err)
	}
	if len(next.FileRules) != len(DefaultFileRules()) || next.Posture.Sysctl != nil || next.Posture.Intervals != nil ||
		next.Posture.Waivers["sshd_x11"] != "why" || !next.Lifecycle || next.FileHash == c.FileHash {
		t.Errorf("%+v", next)
	}
}
