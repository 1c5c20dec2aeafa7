// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sys/unix"

	"security-exporter/internal/config"
	"security-exporter/internal/sensor/event"
	"security-exporter/internal/stream"
)

type fakeStatus struct{ err error }

func (f fakeStatus) Status() (Status, error) {
	return Status{Version: "v", Runtime: Runtime{State: "active"}}, f.err
}

type fakeTop struct{}

func (fakeTop) Top(by string, n int, window time.Duration) (Top, error) {
	if by == "file" {
		return Top{}, errors.New("no\nlists")
	}
	return Top{window, 200, []Entry{{Key: by + "\n\xff", Container: "c", Count: uint64(n), Error: uint64(window / time.Second)}}}, nil
}

func testOptions(address config.API) Options {
	none := ""
	return Options{
		Address: address, Web: web.FlagConfig{WebConfigFile: &none},
		Status: fakeStatus{}, Top: fakeTop{}, TopN: 10, TopCapacity: 100, TopWindow: 10 * time.Minute,
		Hub: stream.NewHub(), Logger: slog.New(slog.DiscardHandler),
	}
}

// serve starts a server on a socket and returns a client for it.
func serve(t *testing.T, change func(*Options)) (*Server, *http.Client) {
	t.Helper()
	opts := testOptions(config.API{Socket: filepath.Join(t.TempDir(), "d", "s")})
	if change != nil {
		change(&opts)
	}
	s := New(opts)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, s.Addr().Network(), s.Addr().String())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return s, &http.Client{Transport: transport}
}

func ask(t *testing.T, c *http.Client, method, path string, header ...string) (int, string, http.Header) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body), resp.Header
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	_, client := serve(t, nil)
	const by = `want exec, connect, connect_process, file, file_process, privilege`
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/api/v1/top?by=exec", 200, `{"by":"exec","window_seconds":600,"total":200,"entries":[{"key":"exec\n` + "\ufffd" + `","container":"c","count":10,"error":600}]}`},
		{"GET", "/api/v1/top?by=connect&n=100&window=1m", 200, `{"by":"connect","window_seconds":60,"total":200,"entries":[{"key":"connect\n` + "\ufffd" + `","container":"c","count":100,"error":60}]}`},
		{"GET", "/api/v1/top?by=privilege&n=1&window=start", 200, `{"by":"privilege","window_seconds":0,"total":200,"entries":[{"key":"privilege\n` + "\ufffd" + `","container":"c","count":1,"error":0}]}`},
		{"GET", "/api/v1/top?by=file", 500, `{"error":"no` + "\ufffd" + `lists"}`},
		{"GET", "/api/v1/top", 400, `{"error":"by=: ` + by + `"}`},
		{"GET", "/api/v1/top?by=disk", 400, `{"error":"by=disk: ` + by + `"}`},
		{"GET", "/api/v1/top?by=%1b%5B31m", 400, `{"error":"by=` + "\ufffd" + `[31m: ` + by + `"}`},
		{"GET", "/api/v1/top?by=exec&by=file", 400, `{"error":"by is given 2 times"}`},
		{"GET", "/api/v1/top?by=exec&n=0", 400, `{"error":"n=0: want a whole number from 1 to 100"}`},
		{"GET", "/api/v1/top?by=exec&n=101", 400, `{"error":"n=101: want a whole number from 1 to 100"}`},
		{"GET", "/api/v1/top?by=exec&n=", 400, `{"error":"n=: want a whole number from 1 to 100"}`},
		{"GET", "/api/v1/top?by=exec&window=11m", 400, `{"error":"window=11m: want a duration from 1s to 10m0s, or start"}`},
		{"GET", "/api/v1/top?by=exec&window=0", 400, `{"error":"window=0: want a duration from 1s to 10m0s, or start"}`},
		{"GET", "/api/v1/top?by=exec&limit=3&%22b=1", 400, `{"error":"unknown parameter \"\\\"b\", \"limit\", want by, n, window"}`},
		{"GET", "/api/v1/top?by=%zz", 400, `{"error":"the query cannot be read: invalid URL escape \"%zz\""}`},
		{"GET", "/api/v1/status?x=1", 400, `{"error":"unknown parameter \"x\", want no parameter"}`},
		{"GET", "/api/v1/events?kind=exe", 400, `{"error":"unknown kind \"exe\", want exec, exit, connect, connect_error, file, privilege, gain, module"}`},
		{"GET", "/api/v1/events?class=root", 400, `{"error":"unknown class \"root\", want system, user, container, suspicious"}`},
		{"GET", "/api/v1/events?min_severity=", 400, `{"error":"unknown min_severity \"\", want info, warning, critical"}`},
		{"GET", "/api/v1/events?severity=info", 400, `{"error":"unknown parameter \"severity\", want kind, class, min_severity"}`},
		{"GET", "/", 404, `{"error":"there is /api/v1/status, /api/v1/top and /api/v1/events"}`},
		{"POST", "/api/v1/status", 405, `{"error":"only GET and HEAD are allowed"}`},
		{"DELETE", "/api/v1/events", 405, `{"error":"only GET and HEAD are allowed"}`},
		{"HEAD", "/api/v1/status", 200, ""},
		{"HEAD", "/api/v1/events", 200, ""},
	} {
		code, body, header := ask(t, client, c.method, c.path)
		var got, want any
		_ = json.Unmarshal([]byte(body), &got) // what is no JSON differs below
		if c.want != "" {
			if err := json.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err, c.want)
			}
		}
		same, _ := json.Marshal(got)
		wanted, _ := json.Marshal(want)
		if code != c.code || string(same) != string(wanted) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, code, body, c.code, c.want)
		}
		if code == 405 && header.Get("Allow") != "GET, HEAD" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: header %v", c.method, c.path, header)
		}
	}
	if code, body, _ := ask(t, client, "GET", "/api/v1/status"); code != 200 || !strings.Contains(body, `"state":"active"`) {
		t.Errorf("status: %d %s", code, body)
	}
}

// Without eBPF there is a status, and a reason for the rest.
func TestNothingToServe(t *testing.T) {
	t.Parallel()
	_, client := serve(t, func(o *Options) {
		o.Top, o.TopOff, o.Hub, o.EventsOff = nil, "eBPF is off", nil, "eBPF is off"
	})
	for path, want := range map[string]int{StatusPath: 200, TopPath + "?by=exec": 503, EventsPath: 503, EventsPath + "?kind=x": 400} {
		code, body, _ := ask(t, client, "GET", path)
		if code != want || code == 503 && body != `{"error":"eBPF is off"}`+"\n" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// reply is an answer that goes on.
type reply struct {
	code   int
	header http.Header
	body   io.ReadCloser
}

// open opens the stream and waits until it is subscribed.
func open(t *testing.T, c *http.Client, path, accept string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://localhost"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return reply{resp.StatusCode, resp.Header, resp.Body}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ accept, media, before, after string }{
		{"", ndjson, "", "\n"},
		{"application/json, text/event-stream;q=0", ndjson, "", "\n"},
		{"*/*", ndjson, "", "\n"},
		{"text/html, text/event-stream; q=0.5", eventStream, "data: ", "\n\n"},
	} {
		server, client := serve(t, nil)
		resp := open(t, client, EventsPath+"?kind=exec,file&min_severity=warning", c.accept)
		if resp.code != 200 || resp.header.Get("Content-Type") != c.media {
			t.Errorf("%q: %d %v", c.accept, resp.code, resp.header)
		}
		hub := server.opts.Hub
		hub.Publish(&event.Event{Kind: 0, Severity: event.Info, Weight: 1, TGID: 1}, nil)
		hub.Publish(&event.Event{Kind: 0, Severity: event.Critical, Weight: 1, TGID: 2, Comm: []byte("a\nb")}, nil)
		hub.Publish(&event.Event{Kind: 4, Severity: event.Warning, Weight: 1, TGID: 3}, nil)
		r := bufio.NewReader(resp.body)
		for _, pid := range []string{`"process.pid":2,`, `"process.pid":3,`} {
			line, err := r.ReadString('\n')
			for err == nil && !strings.HasSuffix(line, c.after) {
				var more string
				more, err = r.ReadString('\n')
				line += more
			}
			if err != nil || !strings.HasPrefix(line, c.before+"{") || !strings.Contains(line, pid) {
				t.Errorf("%q: %q, %v", c.accept, line, err)
			}
		}
		_ = resp.body.Close()
		for deadline := time.Now().Add(5 * time.Second); hub.Active(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the client has left and is still subscribed")
			}
		}
	}
}

// A client that does not read is told what it lost once it reads again, and
// others lose nothing.
func TestEventsSlowReader(t *testing.T) {
	t.Parallel()
	server, client := serve(t, nil)
	slow, fast := open(t, client, EventsPath, ""), open(t, client, EventsPath, "")
	const total = 20000
	var received atomic.Int64 // by the fast one
	count := func(body io.Reader, each func()) (kept, lost int) {
		d := json.NewDecoder(body)
		for kept+lost < total {
			var r stream.Record
			if err := d.Decode(&r); err != nil {
				return kept, -1
			}
			if r.Kind() == stream.KindLost {
				lost += int(r.LostRecords)
			} else {
				kept++
			}
			each()
		}
		return kept, lost
	}
	counted := make(chan int)
	go func() {
		kept, _ := count(fast.body, func() { received.Add(1) })
		counted <- kept
	}()
	for i := range int64(total) {
		server.opts.Hub.Publish(&event.Event{Kind: 1, Weight: 1, TGID: 7, Class: event.NoClass}, nil)
		for deadline := time.Now().Add(10 * time.Second); i-received.Load() > 500; time.Sleep(100 * time.Microsecond) {
			if time.Now().After(deadline) {
				t.Fatal("the slow reader holds up the fast one")
			}
		}
	}
	if kept := <-counted; kept != total {
		t.Errorf("the fast reader kept %d of %d", kept, total)
	}
	kept, lost := count(slow.body, func() {})
	if lost < 1 || kept+lost != total {
		t.Errorf("%d kept and %d lost of %d", kept, lost, total)
	}
}

func TestEventsLimit(t *testing.T) {
	t.Parallel()
	_, client := serve(t, nil)
	for range MaxStreams {
		if resp := open(t, client, EventsPath, ""); resp.code != 200 {
			t.Fatalf("%d", resp.code)
		}
	}
	code, body, header := ask(t, client, "GET", EventsPath)
	if code != 503 || header.Get("Retry-After") == "" || !strings.Contains(body, "16 clients follow events already") {
		t.Errorf("%d %s", code, body)
	}
	if code, _, _ := ask(t, client, "GET", StatusPath); code != 200 {
		t.Errorf("status: %d", code)
	}
}

func TestCloseEndsStreams(t *testing.T) {
	t.Parallel()
	server, client := serve(t, nil)
	resp := open(t, client, EventsPath, "")
	start := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	_, _ = io.ReadAll(resp.body) // returns
	if _, err := os.Lstat(server.opts.Address.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocketModes(t *testing.T) {
	t.Parallel()
	server, _ := serve(t, nil)
	path := server.opts.Address.Socket
	if st, err := os.Lstat(path); err != nil || st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket: %v %v", st.Mode(), err)
	}
	if st, err := os.Lstat(filepath.Dir(path)); err != nil || st.Mode() != fs.ModeDir|0o700 {
		t.Errorf("directory: %v %v", st.Mode(), err)
	}
}

// stale leaves a socket behind that nobody listens on.
func stale(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
}

// What is in the way stays as it is, but for a stale socket of our own.
func TestSocketPathTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		put  func(t *testing.T, path string)
		want string // after the path, or empty if it is replaced
	}{
		"nothing": {func(*testing.T, string) {}, ""},
		"stale":   {stale, ""},
		"file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, ": exists and is no socket; remove it or choose another path"},
		"directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, ": exists and is no socket; remove it or choose another path"},
		"link to a stale socket": {func(t *testing.T, path string) {
			stale(t, path+".real")
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		}, ": exists and is no socket; remove it or choose another path"},
		"live": {func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, ": another process listens there; stop it or choose another path"},
		"other owner": {func(t *testing.T, path string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root to give a socket away")
			}
			stale(t, path)
			if err := os.Lchown(path, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}, ": exists and belongs to another user; remove it or choose another path"},
		"datagrams": {func(t *testing.T, path string) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, ": exists, and whether it is in use is not known: dial unix PATH: connect: protocol wrong type for socket"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "s")
			c.put(t, path)
			before, _ := os.Lstat(path)
			s := New(testOptions(config.API{Socket: path}))
			err := s.Listen()
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if want := path + strings.ReplaceAll(c.want, "PATH", path); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
				t.Errorf("it was changed: %v %v", after, err)
			}
		})
	}
}

func TestSocketDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(open, "s"):          open + ": everybody may replace files in this directory; choose another",
		filepath.Join(dir, "a", "b", "s"): "mkdir " + filepath.Join(dir, "a", "b") + ": no such file or directory",
	} {
		if err := New(testOptions(config.API{Socket: path})).Listen(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// Of several that start at once on a stale socket, one gets it.
func TestSocketRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	stale(t, path)
	var starting sync.WaitGroup
	var mu sync.Mutex
	var won []*Server
	for range 8 {
		starting.Go(func() {
			s := New(testOptions(config.API{Socket: path}))
			if s.Listen() == nil {
				mu.Lock()
				won = append(won, s)
				mu.Unlock()
			}
		})
	}
	starting.Wait()
	if len(won) != 1 {
		t.Fatalf("%d servers on one socket", len(won))
	}
	// What took the place of the socket stays at the end.
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600), won[0].Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	_, client := serve(t, func(o *Options) { o.Address = config.API{TCP: "127.0.0.1:0"} })
	for host, want := range map[string]int{"localhost": 200, "localhost:1": 200, "127.0.0.1": 200, "[::1]:5": 200, "[::1]": 200, "evil.example": 403, "evil.example:80": 403} {
		if code, body, _ := ask(t, client, "GET", StatusPath, "Host", host); code != want {
			t.Errorf("as %s: %d %s", host, code, body)
		}
	}
}

func TestTCPTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := New(testOptions(config.API{TCP: l.Addr().String()})).Listen(); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("error %v", err)
	}
	if _, err := listenTCP("0.0.0.0:0", false); err == nil || !strings.HasSuffix(err.Error(), "which is not on loopback") {
		t.Errorf("error %v", err)
	}
}
