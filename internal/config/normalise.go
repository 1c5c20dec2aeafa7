// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// Normalise rewrites arguments into the one spelling that kingpin takes:
// --name=value, --name and --no-name. It accepts one dash or two, a value
// after = or as the next argument, and =true or =false for switches.
//
// It also keeps everything else away from kingpin, whose parser would read
// arguments from a file for a word like @name.
func Normalise(args []string, app *kingpin.Application) ([]string, error) {
	isBool := func(name string) (isBool, exists bool) { return isSwitch(app, name) }
	var out []string
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' || arg == "--" {
			return nil, fmt.Errorf("unexpected argument %q: only flags are allowed, see --help", shorten(arg))
		}
		if arg == "-h" {
			out = append(out, "--help")
			continue
		}
		name, val, hasVal := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		if sw, ok := isBool(name); ok && !sw {
			if !hasVal {
				i++
				if i == len(args) || looksLikeFlag(args[i], isBool) {
					return nil, fmt.Errorf("--%s needs a value", name)
				}
				val = args[i]
			}
			out = append(out, "--"+name+"="+val)
			continue
		}
		spelled, err := switchArg(name, val, hasVal, isBool)
		if err != nil {
			return nil, err
		}
		out = append(out, spelled)
	}
	return out, nil
}

// switchArg spells a switch, which may be negated by its name or its value.
func switchArg(name, val string, hasVal bool, isBool func(string) (bool, bool)) (string, error) {
	base, on := name, true
	if sw, ok := isBool(name); !ok || !sw {
		var negated bool
		base, negated = strings.CutPrefix(name, "no-")
		if sw, ok := isBool(base); !negated || !ok || !sw {
			return "", fmt.Errorf("unknown flag --%s, see --help", printable(name))
		}
		on = false
	}
	if hasVal {
		switch val {
		case "true":
		case "false":
			on = !on
		default:
			return "", fmt.Errorf("--%s=%s: want true or false", name, printable(val))
		}
	}
	if on {
		return "--" + base, nil
	}
	return "--no-" + base, nil
}

// looksLikeFlag tells a forgotten value from a value that begins with a dash.
func looksLikeFlag(arg string, isBool func(string) (bool, bool)) bool {
	if len(arg) < 2 || arg[0] != '-' {
		return false
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
	_, exists := isBool(name)
	_, negated := isBool(strings.TrimPrefix(name, "no-"))
	return exists || negated
}

// isSwitch says whether a flag exists and whether it takes no value.
func isSwitch(app *kingpin.Application, name string) (isBool, exists bool) {
	clause := app.GetFlag(name)
	if clause == nil {
		return false, false
	}
	return clause.Model().IsBoolFlag(), true
}
