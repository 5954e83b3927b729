// Package monitoring has no code but tests: Prometheus' own parsers read the alert rules
// and what the dashboard asks for.
package monitoring
