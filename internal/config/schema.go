// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"io"
)

// rulePathPattern is checkRulePath as far as a pattern can say it.
func rulePathPattern() string {
	const component = `[^/\x00\[*?]+`
	const last = `([^/\x00\[*]+\*?|\*)[^/\x00\[*]*`
	return fmt.Sprintf(`^~/$|^~?/(%s/){0,%d}%s/?$`, component, maxPathDepth-1, last)
}

// intervalPattern is a duration in whole hours, minutes and seconds.
const intervalPattern = `^([0-9]+h)?([0-9]+m)?([0-9]+s)?$`

// WriteSchema writes the JSON Schema of the configuration file. It refuses
// what the parser refuses, but for what a schema cannot express: keys and
// paths that come twice, a rule that switches off what is not built in, how
// long a name is in bytes, and how large a duration. A section may be empty,
// as in the parser.
func WriteSchema(w io.Writer, known Known) error {
	type object = map[string]any
	section := func(properties object) object {
		return object{"type": []string{"object", "null"}, "additionalProperties": false, "properties": properties}
	}
	severity := object{"enum": []any{"critical", "warning", "info", "none", "", nil}}
	rule := object{
		"type": "object", "additionalProperties": false, "required": []string{"path"},
		"anyOf": []object{
			{"required": []string{"read"}, "properties": object{"read": object{"enum": Severities()}}},
			{"required": []string{"write"}, "properties": object{"write": object{"enum": Severities()}}},
		},
		"properties": object{
			"path": object{
				"type": "string", "maxLength": maxPathBytes, "pattern": rulePathPattern(),
				"not":         object{"pattern": fmt.Sprintf(`^/$|(^|/)\.\.?(/|$)|[^/]{%d}`, maxNameBytes+1)},
				"description": "A file, a directory (with / at its end) or a glob of ? and at most one * in the last component; ~/ stands for every home directory.",
			},
			"read":  describe(severity, "How much an open for reading matters."),
			"write": describe(severity, "How much an open for writing, a replacement, a removal or a change of mode or owner matters."),
		},
	}
	collectors := object{}
	for _, name := range known.Collectors {
		collectors[name] = object{
			"type": "object", "additionalProperties": false,
			"properties": object{"interval": object{
				"type": []string{"string", "null"}, "minLength": 2, "pattern": intervalPattern,
				"description": fmt.Sprintf("Pause between two runs, %v to %v.", MinInterval, MaxInterval),
			}},
		}
	}
	schema := section(object{
		"file_access": section(object{
			"defaults": object{"type": "boolean", "description": "Whether the built-in rules hold too."},
			"rules":    object{"type": []string{"array", "null"}, "maxItems": MaxFileRules, "items": rule},
		}),
		"checks": section(object{
			"waive": object{
				"type": []string{"object", "null"}, "description": "The reason why a check may fail, by its id.",
				"propertyNames": object{"enum": known.Checks}, "additionalProperties": object{"type": "string", "minLength": 1},
			},
		}),
		"sysctl": section(object{
			"expect": object{
				"type": []string{"object", "null"}, "description": "The value that a kernel parameter should have; null expects nothing.",
				"propertyNames": object{"pattern": sysctlName.String(), "maxLength": maxShown}, "maxProperties": MaxSysctl,
				"additionalProperties": object{"type": []string{"string", "number", "boolean", "null"}, "maxLength": maxShown},
			},
		}),
		"collectors": section(collectors),
	})
	schema["$schema"], schema["title"] = "https://json-schema.org/draft/2020-12/schema", "Configuration file of security-exporter"
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(schema)
}

func describe(schema map[string]any, text string) map[string]any {
	return map[string]any{"enum": schema["enum"], "description": text}
}
