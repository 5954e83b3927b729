// Package faults breaks things while virtual machines migrate on full quotas of a real
// control plane, and looks whether everything comes right: no limit below static is ever
// written, every migration gets on, and in the end status.hard is spec.hard to the byte.
package faults
