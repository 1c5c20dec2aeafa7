// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// State is what became of a probe.
type State string

// The states, as the state label spells them.
const (
	Attached      State = "attached"
	NotApplicable State = "not_applicable"
	Unsupported   State = "unsupported"
	Denied        State = "denied"
	Failed        State = "error"
)

// Reason is why a probe is not attached.
type Reason string

// The reasons, as the reason label spells them.
const (
	ReasonNoBTF           Reason = "no_btf"
	ReasonNoTracefs       Reason = "no_tracefs"
	ReasonNoPermission    Reason = "no_permission"
	ReasonNoCgroup2       Reason = "no_cgroup2"
	ReasonHookMissing     Reason = "hook_missing"
	ReasonVerifier        Reason = "verifier"
	ReasonKernelTooOld    Reason = "kernel_too_old"
	ReasonNoModuleSupport Reason = "no_module_support"
	ReasonDisabled        Reason = "disabled"
	ReasonNone            Reason = "none"
)

// States and Reasons are the closed sets of the two labels.
var (
	States  = []string{string(Attached), string(NotApplicable), string(Unsupported), string(Denied), string(Failed)}
	Reasons = []string{
		string(ReasonNoBTF), string(ReasonNoTracefs), string(ReasonNoPermission), string(ReasonNoCgroup2),
		string(ReasonHookMissing), string(ReasonVerifier), string(ReasonKernelTooOld),
		string(ReasonNoModuleSupport), string(ReasonDisabled), string(ReasonNone),
	}
)

// Errors that a rung or a part may return before anything is loaded.
var (
	// ErrNotApplicable: the kernel has nothing of the kind; no failure.
	ErrNotApplicable    = errors.New("not applicable to this kernel")
	ErrNoModules        = &reasonError{"the kernel has no module support", ReasonNoModuleSupport}
	errNoBTF            = &reasonError{"the kernel has no BTF (CONFIG_DEBUG_INFO_BTF), or it cannot be read", ReasonNoBTF}
	errNoTracefs        = &reasonError{"tracefs is not mounted and cannot be mounted privately", ReasonNoTracefs}
	errNoCgroup2        = &reasonError{"no cgroup v2 hierarchy of the host is mounted", ReasonNoCgroup2}
	errNoTracing        = &reasonError{"the kernel has no programs of BTF tracepoints, functions and iterators (Linux 5.5)", ReasonKernelTooOld}
	errFreesTrampolines = &reasonError{"the kernel frees trampolines that calls have yet to return to (Linux 5.12)", ReasonKernelTooOld}
	errNoTrampolines    = &reasonError{"the kernel refuses trampolines (fentry, fexit)", ReasonNoPermission}
	ErrHookMissing      = &reasonError{"the kernel does not have this hook", ReasonHookMissing}
)

// errLockdown: lockdown=confidentiality.
var errLockdown = errors.New("the kernel is locked down (lockdown=confidentiality): programs may not read its memory")

// explain says in plain words what a refusal by the verifier means, where it
// has one cause only: lockdown takes away the helpers that read the kernel.
func explain(err error) error {
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		return err
	}
	for _, line := range verifier.Log {
		if strings.Contains(line, "bpf_probe_read") && (strings.Contains(line, "unknown func") || strings.Contains(line, "cannot use helper")) {
			return fmt.Errorf("%w: %s", errLockdown, strings.TrimSpace(line))
		}
	}
	return err
}

// explainPerfEvent says what a perf event is refused for by kernels of Debian and
// its kin: from 3 on, kernel.perf_event_paranoid leaves them to CAP_SYS_ADMIN,
// also those that kprobes and classic tracepoints need.
func explainPerfEvent(procfs string, err error) error {
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	text, readErr := os.ReadFile(filepath.Join(procfs, "sys/kernel/perf_event_paranoid"))
	level, numberErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if readErr != nil || numberErr != nil || level < 3 {
		return err
	}
	return fmt.Errorf("%w: kernel.perf_event_paranoid is %d: set it to 2, or grant CAP_SYS_ADMIN", err, level)
}

type reasonError struct {
	text   string
	reason Reason
}

func (e *reasonError) Error() string { return e.text }

// Status is the state of a probe. Hook lists the rungs in use; it is not
// empty when only some parts failed.
type Status struct {
	Hook   string
	State  State
	Reason Reason
}

// Up says whether every part that applies is attached.
func (s Status) Up() bool { return s.State == Attached }

// Running says whether any part is attached.
func (s Status) Running() bool { return s.Hook != "" }

// worse keeps the graver of two states: a part that does not apply is no news
// when another one failed.
func (s Status) worse(t Status) Status {
	if s.State == "" || s.State == NotApplicable {
		t.Hook = s.Hook
		return t
	}
	return s
}

// statusOf sorts an error into the closed lists.
func statusOf(err error) Status {
	var reason *reasonError
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, ErrNoModules):
		return Status{State: NotApplicable, Reason: ReasonNoModuleSupport}
	case errors.Is(err, ErrNotApplicable):
		return Status{State: NotApplicable, Reason: ReasonNone}
	case errors.As(err, &reason):
		return Status{State: Unsupported, Reason: reason.reason}
	case errors.Is(err, errLockdown):
		return Status{State: Denied, Reason: ReasonNoPermission}
	case errors.Is(err, unix.EPERM), errors.As(err, &verifier) && errors.Is(err, unix.EACCES) && len(verifier.Log) == 0:
		return Status{State: Denied, Reason: ReasonNoPermission}
	case errors.As(err, &verifier):
		return Status{State: Failed, Reason: ReasonVerifier}
	case errors.Is(err, os.ErrNotExist), errors.Is(err, btf.ErrNotFound):
		return Status{State: Unsupported, Reason: ReasonHookMissing}
	case errors.Is(err, os.ErrPermission):
		return Status{State: Denied, Reason: ReasonNoPermission}
	case errors.Is(err, ebpf.ErrNotSupported):
		return Status{State: Unsupported, Reason: ReasonKernelTooOld}
	default:
		return Status{State: Failed, Reason: ReasonNone}
	}
}
