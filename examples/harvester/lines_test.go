package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What takes the place of raising, restoring and compensating quotas is at most 25 lines,
// not counting imports, comments and blank lines.
func TestTwentyFiveLines(t *testing.T) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "headroom.go", nil, parser.SkipObjectResolution) // without comments
	require.NoError(t, err)
	lines := 0
	for _, d := range file.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.IMPORT {
			continue
		}
		var code bytes.Buffer
		require.NoError(t, printer.Fprint(&code, files, d))
		for line := range strings.Lines(code.String()) {
			if strings.TrimSpace(line) != "" {
				lines++
			}
		}
	}
	t.Logf("headroom.go: %d lines", lines)
	require.Greater(t, lines, 10)
	require.LessOrEqual(t, lines, 25)
}
