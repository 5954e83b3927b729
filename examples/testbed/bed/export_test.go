package bed

import (
	"fmt"
	"os"
	"strings"
)

// AllComponents are those of a bed with two API servers.
var AllComponents = all

// PID returns the number of a component's process; zero if it does not run.
func (b *Bed) PID(component Component) int {
	pid, err := b.processes[component].pid()
	if err != nil {
		return 0
	}
	return pid
}

// Runs reports whether there is a process of that number that has not ended.
func Runs(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(status), "State:\tZ")
}
