// Package monitoring has no code but tests: Prometheus' own parsers and rule engine run the
// rules and the queries of the dashboard.
package monitoring
