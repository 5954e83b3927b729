package rancher

import (
	"errors"
	"os"
	"strconv"

	"github.com/vmquota/headroom/ledger"
	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/quota"
)

// DisabledVariable is the environment variable that switches every Shim of the process
// off, unless it is empty, unset, or false in the sense of strconv.ParseBool.
const DisabledVariable = "HEADROOM_RANCHER_DISABLED"

// A Config is what a [Shim] works with.
type Config struct {
	// Ledger is where the migrations in flight are read. It is required.
	Ledger ledger.Ledger
	// Policy is that of a namespace, and is asked each time. Nil: the zero Policy.
	Policy func(namespace string) quota.Policy
	// Disabled is the kill switch, and is asked each time. Nil: it is off. See
	// DisabledVariable for another one.
	Disabled func() bool
	// Takeover counts what a Harvester from before this library says on a quota
	// ([ReadHarvester]) as in flight, while the ledger says nothing: so that the first write
	// of the limits does not lower what it has raised. It goes with a Takeover that has
	// Seed, called before the applier, and is for clusters in which every Harvester has the
	// library: an old one takes nothing out of the ledger.
	Takeover bool
}

// A Shim stands between a controller that knows the static limits only and its
// ResourceQuotas. [New] makes one. It is safe for concurrent use, and keeps nothing in
// memory.
type Shim struct{ config Config }

// New returns a Shim. It fails if the Ledger is missing.
func New(config Config) (*Shim, error) {
	if config.Ledger == nil {
		return nil, errors.New("a shim needs a Ledger")
	}
	return &Shim{config: config}, nil
}

// Disabled reports whether the shim is switched off, by Config.Disabled or by
// DisabledVariable.
func (s *Shim) Disabled() bool {
	if s.config.Disabled != nil && s.config.Disabled() {
		return true
	}
	value := os.Getenv(DisabledVariable)
	on, err := strconv.ParseBool(value)
	return on || err != nil && value != ""
}

// Applier returns the applier that belongs beside the shim: that of config, with the
// ledger, the policy and the kill switch of the shim, and HarvesterSkips if there is no
// other DisabledFor. Its client and its List are to be undecorated ones. It fails if config
// lacks something.
func (s *Shim) Applier(config applier.Config) (*applier.Applier, error) {
	config.Ledger, config.Policy, config.Disabled = s.config.Ledger, s.config.Policy, s.Disabled
	if config.DisabledFor == nil {
		config.DisabledFor = HarvesterSkips
	}
	return applier.New(config)
}

// policy returns that of a namespace.
func (s *Shim) policy(namespace string) quota.Policy {
	if s.config.Policy == nil {
		return quota.Policy{}
	}
	return s.config.Policy(namespace)
}
