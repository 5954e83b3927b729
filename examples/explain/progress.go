package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A progress is one line on a terminal that tells how far a long read has come. On
// anything but a terminal it writes nothing.
type progress struct {
	out   io.Writer // nil: none
	next  time.Time
	shown bool
}

// patience is how long nothing is shown, and how often the line changes then.
const patience = 300 * time.Millisecond

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	if !ok {
		return &progress{}
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return &progress{}
	}
	return &progress{out: w, next: time.Now().Add(patience)}
}

// show replaces the line.
func (p *progress) show(format string, args ...any) {
	if p.out == nil || time.Now().Before(p.next) {
		return
	}
	p.next, p.shown = time.Now().Add(patience), true
	fmt.Fprintf(p.out, "\r\x1b[K"+format, args...)
}

// begin replaces the line at once: something long begins.
func (p *progress) begin(format string, args ...any) {
	p.next = time.Time{}
	p.show(format, args...)
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// reader counts what is read from r, called name.
func (p *progress) reader(name string, r io.Reader) io.Reader {
	if p.out == nil {
		return r
	}
	return &countingReader{Reader: r, name: name, progress: p}
}

type countingReader struct {
	io.Reader
	name     string
	progress *progress
	bytes    float64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.bytes += float64(n)
	r.progress.show("reading %s: %.1f MiB", r.name, r.bytes/(1<<20))
	return n, err
}
