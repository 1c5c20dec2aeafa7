// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	answerTimeout = 10 * time.Second
	maxAnswer     = 16 << 20
)

// connection asks one exporter.
type connection struct {
	address string
	http    http.Client
}

func connect(address string) (*connection, error) {
	c := &connection{address: address}
	network := "unix"
	if !filepath.IsAbs(address) {
		network = "tcp"
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, usageError{fmt.Errorf("--api.address=%s: want the absolute path of a socket, or HOST:PORT", clean(address))}
		}
	}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: answerTimeout}).DialContext(ctx, network, address)
		},
		ResponseHeaderTimeout: answerTimeout,
	}
	return c, nil
}

// open asks for a path. The body is the caller's to close; an answer that is
// an error becomes one.
func (c *connection) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	host := "localhost"
	if !filepath.IsAbs(c.address) {
		host = c.address
	}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var failure struct {
		Error string `json:"error"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	if json.Unmarshal(body, &failure) != nil || failure.Error == "" {
		failure.Error = resp.Status
	}
	return nil, fmt.Errorf("the exporter answers: %s", failure.Error)
}

// get asks for a path and returns the whole answer.
func (c *connection) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	body, err := c.open(ctx, path, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return nil, c.explain(err)
	}
	return data, nil
}

// explain says in one line what to do about a connection that failed.
func (c *connection) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist; start security-exporter, or give --api.address if it has another --api.listen-address", c.address)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on %s; start security-exporter, or give --api.address if it has another --api.listen-address", c.address)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s is not yours to use; run this as root, or as the user of security-exporter", c.address)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer within %v", c.address, answerTimeout)
	}
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return fmt.Errorf("%s: %s", c.address, strings.Join(strings.Fields(err.Error()), " "))
}
