// Package guard has a ValidatingAdmissionPolicy that keeps the room of a raised quota for
// live migrations, and its tests. See README.md.
package guard
