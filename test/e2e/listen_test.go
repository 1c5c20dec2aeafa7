// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// certificate writes a key and a certificate for 127.0.0.1, and returns a
// pool that trusts it.
func certificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	for path, content := range map[string][]byte{
		certFile: certPEM,
		keyFile:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pool := certificate(t, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	config := filepath.Join(dir, "web.yml")
	if err := os.WriteFile(config, []byte("tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Two addresses: each has its own server.
	p := start(t, "--web.config.file="+config, "--web.listen-address=127.0.0.1:0")
	for deadline := time.Now().Add(5 * time.Second); strings.Count(p.stderr(), "TLS is enabled") < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("TLS is not enabled\n%s", p.stderr())
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	for _, m := range listening.FindAllStringSubmatch(p.stderr(), -1) {
		resp, err := client.Get("https://" + m[1] + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "security_exporter_build_info{") {
			t.Errorf("%s: %d %v", m[1], resp.StatusCode, err)
		}
	}
	if code, _ := p.get(t, "/metrics", nil); code != http.StatusBadRequest {
		t.Errorf("plain HTTP: %d, want 400", code)
	}
	p.stop(t)
}

// TestSocketActivation hands over a listening socket as sd_listen_fds(3)
// says: descriptor 3, and the process named in LISTEN_PID.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --web.systemd-socket`, binary)
	cmd.ExtraFiles = []*os.File{f}
	p := launchCmd(t, cmd)
	p.addr = l.Addr().String()
	if code, _ := p.get(t, "/healthz", nil); code != http.StatusOK {
		t.Errorf("/healthz: %d\n%s", code, p.stderr())
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t, stopLimit); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.stderr())
	}

	alone := launch(t, "--web.systemd-socket")
	if code := alone.wait(t, 5*time.Second); code != 2 || !strings.HasSuffix(alone.stderr(), "security-exporter: cannot serve: no socket activation file descriptors found\n") {
		t.Errorf("without a socket: exit code %d\n%s", code, alone.stderr())
	}
}
