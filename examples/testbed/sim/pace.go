package sim

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// A step is something that takes time.
type step struct {
	what    string
	of, and types.UID
}

// A pace tells when steps are over that began when somebody first asked.
type pace struct {
	now     func() time.Time
	began   map[step]time.Time
	waiting bool // somebody asked about a step that is not over
}

// over tells whether a step is over that takes so long.
func (p *pace) over(takes time.Duration, s step) bool {
	now := p.now()
	began, known := p.began[s]
	if !known {
		if len(p.began) > 100_000 { // all but a few are long over
			clear(p.began)
		}
		p.began[s], began = now, now
	}
	if now.Sub(began) >= takes {
		return true
	}
	p.waiting = true
	return false
}
