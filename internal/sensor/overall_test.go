// SPDX-License-Identifier: Apache-2.0

package sensor

import (
	"testing"

	"security-exporter/internal/sensor/probe"
)

func TestOverall(t *testing.T) {
	t.Parallel()
	attached := probe.Status{Hook: "tp_btf/x", State: probe.Attached, Reason: probe.ReasonNone}
	inPart := probe.Status{Hook: "tp_btf/x", State: probe.Unsupported, Reason: probe.ReasonNoTracefs}
	denied := probe.Status{State: probe.Denied, Reason: probe.ReasonNoPermission}
	none := probe.Status{State: probe.NotApplicable, Reason: probe.ReasonNoModuleSupport}
	notAsked := probe.Status{State: probe.NotApplicable, Reason: probe.ReasonDisabled}
	for name, c := range map[string]struct {
		enabled  bool
		statuses []probe.Status
		status   string
		up       bool
	}{
		"not asked for":             {false, []probe.Status{notAsked, notAsked}, "disabled", false},
		"disabled wins":             {false, []probe.Status{attached}, "disabled", false},
		"all":                       {true, []probe.Status{attached, attached}, "active", true},
		"one does not apply":        {true, []probe.Status{attached, none}, "active", true},
		"a subset":                  {true, []probe.Status{attached, notAsked, notAsked}, "active", true},
		"one failed":                {true, []probe.Status{attached, denied}, "partial", true},
		"one runs in part":          {true, []probe.Status{attached, inPart}, "partial", true},
		"the only one runs in part": {true, []probe.Status{inPart, notAsked}, "partial", true},
		"all failed":                {true, []probe.Status{denied, denied}, "degraded", false},
		"failed or not applicable":  {true, []probe.Status{denied, none}, "degraded", false},
		"nothing":                   {true, nil, "degraded", false},
	} {
		if status, up := overall(c.enabled, c.statuses); status != c.status || up != c.up {
			t.Errorf("%s: %s, %v, want %s, %v", name, status, up, c.status, c.up)
		}
	}
}
