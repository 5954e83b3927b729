package bed

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A progress tells how far a build is: on a terminal every second, on one line that is
// written anew, and elsewhere every half minute.
type progress struct {
	title string
	start time.Time

	mu       sync.Mutex
	packages int
	modules  int
	other    []string // what the build says beside that: errors
}

// read counts what go build -v says.
func (p *progress) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		switch {
		case strings.HasPrefix(line, "go: downloading "):
			p.modules++
		case strings.ContainsAny(line, " :"):
			p.other = append(p.other, line)
		default:
			p.packages++
		}
		p.mu.Unlock()
	}
}

func (p *progress) line() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := fmt.Sprintf("%s: %d s", p.title, int(time.Since(p.start).Seconds()))
	if p.modules > 0 {
		line += fmt.Sprintf(", %d modules downloaded", p.modules)
	}
	return line + fmt.Sprintf(", %d packages compiled", p.packages)
}

// errors returns what the build said that is no progress.
func (p *progress) errors() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.other, "\n")
}

// show writes lines to w until done is closed.
func (p *progress) show(w io.Writer, done <-chan struct{}) {
	interval, format := 30*time.Second, "%s\n"
	terminal := isTerminal(w)
	if terminal {
		interval, format = time.Second, "\r%s\x1b[K"
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			if terminal {
				fmt.Fprint(w, "\r\x1b[K")
			}
			return
		case <-tick.C:
			fmt.Fprintf(w, format, p.line())
		}
	}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
