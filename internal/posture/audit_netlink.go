// SPDX-License-Identifier: Apache-2.0

package posture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sends AUDIT_GET and AUDIT_LIST_RULES (include/uapi/linux/audit.h). The
// kernel answers only in the initial user namespace (else ECONNREFUSED) and
// the initial pid namespace, and to CAP_AUDIT_CONTROL (else EPERM).

// auditStatus is the part of struct audit_status that all kernels have.
type auditStatus struct {
	Mask, Enabled, Failure, Pid, RateLimit, BacklogLimit, Lost, Backlog uint32
}

// auditState is what the kernel's audit system does. Enabled is 0, 1 or 2;
// Pid is that of the daemon, 0 without one; rules is how many are loaded.
type auditState struct {
	auditStatus
	rules int
}

// queryAudit asks the kernel.
func queryAudit(ctx context.Context) (*auditState, error) {
	conn, err := dialNetlink(ctx, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, auditError(err)
	}
	defer func() { _ = conn.Close() }()
	var s auditState
	answered := false
	err = auditAsk(conn, unix.AUDIT_GET, func(b []byte) error {
		answered = true
		s.auditStatus, err = parseAuditStatus(b)
		return err
	})
	if err == nil && !answered {
		err = errors.New("no status in the answer")
	}
	if err == nil {
		err = auditAsk(conn, unix.AUDIT_LIST_RULES, func([]byte) error {
			s.rules++
			return nil
		})
	}
	if err != nil {
		return nil, auditError(err)
	}
	return &s, nil
}

func auditAsk(conn *netlink.Conn, message netlink.HeaderType, f func(data []byte) error) error {
	request := netlink.Message{Header: netlink.Header{Type: message, Flags: netlink.Request}}
	if _, err := conn.Send(request); err != nil {
		return err
	}
	var problem error
	for m, err := range conn.ReceiveIter() {
		if err != nil {
			return err
		}
		if problem == nil && m.Header.Type == message {
			problem = f(m.Data)
		}
	}
	return problem
}

func parseAuditStatus(b []byte) (auditStatus, error) {
	var s auditStatus
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &s); err != nil {
		return auditStatus{}, fmt.Errorf("status of %d bytes: %w", len(b), err)
	}
	return s, nil
}

func auditError(err error) error {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("audit: %w: the kernel answers only in the initial user namespace", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("audit: %w: grant CAP_AUDIT_CONTROL and run in the host's pid namespace", err)
	}
	return fmt.Errorf("audit: %w", err)
}
