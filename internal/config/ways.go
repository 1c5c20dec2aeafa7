// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxSocketPath is what sockaddr_un holds, without the NUL at its end
// (unix(7)).
const maxSocketPath = 107

func duration(s string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > most || d%time.Second != 0 {
		return 0, fmt.Errorf("want a duration in whole seconds from %v to %v, such as 10m", least, most)
	}
	return d, nil
}

// checkOutput stores where events are written. Whether a file can be opened is
// seen when it is.
func (e *Events) checkOutput(s string) error {
	path, isFile := strings.CutPrefix(s, "file:")
	switch {
	case s == "":
	case s == "stdout":
		e.Stdout = true
	case !isFile:
		return errors.New("want stdout or file:PATH")
	case !filepath.IsAbs(path) || strings.HasSuffix(path, "/"):
		return errors.New("want file: and the absolute path of a file")
	default:
		e.Path = filepath.Clean(path)
	}
	return nil
}

// check stores where the API listens.
func (a *API) check(s, webConfig string) error {
	switch {
	case s == "":
		return nil
	case filepath.IsAbs(s):
		a.Socket = filepath.Clean(s)
		if strings.HasSuffix(s, "/") || strings.ContainsRune(s, 0) {
			return errors.New("want the path of a socket")
		}
		if len(a.Socket) > maxSocketPath {
			return fmt.Errorf("is %d bytes long; the path of a socket has at most %d", len(a.Socket), maxSocketPath)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("want the absolute path of a socket, or HOST:PORT")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is no number below 65536", port)
	}
	a.TCP = s
	if isLoopback(host) {
		return nil
	}
	guarded, err := hasTLSAndUsers(webConfig)
	if err != nil {
		return err
	}
	if !guarded {
		return errors.New("is not on loopback, and --web.config.file does not ask for TLS and authentication; want a socket, 127.0.0.1:PORT or [::1]:PORT")
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || host == "localhost"
}

// hasTLSAndUsers says whether the exporter-toolkit's configuration, which was
// validated before, encrypts and asks who is there: for a password or for a
// client certificate that it verifies.
func hasTLSAndUsers(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	data, err := readFile(path)
	if err != nil {
		return false, err
	}
	var web struct {
		TLS struct {
			Cert       string `yaml:"cert"`
			CertFile   string `yaml:"cert_file"`
			ClientAuth string `yaml:"client_auth_type"`
		} `yaml:"tls_server_config"`
		Users map[string]yaml.Node `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(data, &web); err != nil {
		return false, fmt.Errorf("%s: %s", printable(path), oneLine(err.Error()))
	}
	tls := web.TLS.Cert != "" || web.TLS.CertFile != ""
	return tls && (len(web.Users) > 0 || web.TLS.ClientAuth == "RequireAndVerifyClientCert"), nil
}
