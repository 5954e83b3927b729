package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"k8s.io/client-go/rest"
)

// programVariable is in the environment of a process that is to be a [Program].
const programVariable = "HEADROOM_TESTBED_PROGRAM"

// A Program is what a process does.
type Program string

const (
	// Headroom is the library, with a ledger in its memory.
	Headroom Program = "headroom"
	// Recorded is the library, with a ledger in ConfigMaps. Its user needs [WriteLedger].
	Recorded Program = "headroom-recorded"
	// Guarded is the library, and it announces its offers to the guard.
	Guarded Program = "headroom-guarded"
	// RaisePending is another policy, for comparison: it raises spec.hard for every
	// migration that exists, and lowers it when the migration has succeeded or failed.
	// Its user needs [WriteQuotas].
	RaisePending Program = "raise-pending"
)

// settings are what a process reads from its standard input.
type settings struct {
	Host          string
	CA, Cert, Key []byte
	Token         string
	Agent         string // what it calls itself to the API server
}

func (s settings) config() *rest.Config {
	return &rest.Config{
		Host:            s.Host,
		BearerToken:     s.Token,
		UserAgent:       s.Agent,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.CA, CertData: s.Cert, KeyData: s.Key},
		QPS:             -1,
	}
}

// Main does nothing, unless this process was started by [Start]. Then it is the Program,
// and does not return.
func Main() {
	program := Program(os.Getenv(programVariable))
	if program == "" {
		return
	}
	if err := serve(program, os.Stdin, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "process:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve runs until the standard input ends, which it does when the process that started
// this one is gone.
func serve(program Program, input io.Reader, log io.Writer) error {
	decoder := json.NewDecoder(input)
	var s settings
	if err := decoder.Decode(&s); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, input) // an error is an end, too
		stop()
	}()
	return run(ctx, program, s.config(), log)
}
