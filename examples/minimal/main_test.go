package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README shows this program, which has at most 15 lines of its own.
func TestREADMEShowsMain(t *testing.T) {
	source, err := os.ReadFile("main.go")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(source), "\nfunc main() {\n")
	require.True(t, found)
	text = "func main() {\n" + text
	require.LessOrEqual(t, strings.Count(text, "\n"), 15)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), text)
}
