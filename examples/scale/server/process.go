//go:build unix

package server

import (
	"bufio"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
)

// Start serves handler over TLS and HTTP/2 in this process until stop is called.
func Start(handler http.Handler) (api *rest.Config, stop func()) {
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{CAData: certificate}}, func() {
		server.CloseClientConnections()
		server.Close()
	}
}

// Serve is what a program does that [Spawn] has started: it serves handler, and ends with its
// parent.
func Serve(handler http.Handler) {
	api, _ := Start(handler)
	fmt.Println(api.Host, strconv.Quote(string(api.CAData)))
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}

// Spawn starts this program once more, with the argument -serve besides its own, and returns how
// to reach its server.
func Spawn() (api *rest.Config, stop func(), err error) {
	child := exec.Command(os.Args[0], append(os.Args[1:], "-serve")...)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := child.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() { _ = in.Close(); _ = child.Wait() }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, err
	}
	url, quoted, _ := strings.Cut(strings.TrimSpace(line), " ")
	certificate, err := strconv.Unquote(quoted)
	return &rest.Config{Host: url, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(certificate)}}, stop, err
}

// A Usage is what this process uses.
type Usage struct {
	Goroutines int
	Heap, RSS  float64 // in bytes; Heap is after a garbage collection
}

// Used returns that of now. What the operating system does not say is zero.
func Used() Usage {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	u := Usage{Goroutines: runtime.NumGoroutine(), Heap: float64(stats.HeapAlloc)}
	var pages float64
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(text), &pages, &u.RSS)
	}
	u.RSS *= float64(os.Getpagesize())
	return u
}

// CPU returns for how long this process has had a core for itself, whatever else the machine does.
func CPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
