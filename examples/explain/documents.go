package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// A document is one document of a file, as JSON.
type document struct {
	where string // the file, and which document if there are several
	json  []byte
}

// readDocuments splits a file into its documents. Empty ones are left out.
func readDocuments(name string, data []byte) ([]document, error) {
	ext := filepath.Ext(name)
	if ext == ".json" || ext != ".yaml" && ext != ".yml" && bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return readJSON(name, data)
	}
	return readYAML(name, data)
}

func readJSON(name string, data []byte) ([]document, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	var docs []document
	for {
		start := decoder.InputOffset()
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		switch {
		case errors.Is(err, io.EOF):
			return nameDocuments(name, docs), nil
		case err != nil:
			return nil, fmt.Errorf("%s:%d: %w", name, lineOfJSONError(data, decoder, err), err)
		}
		start += int64(len(data[start:]) - len(bytes.TrimLeft(data[start:], " \t\r\n")))
		docs = append(docs, document{where: strconv.Itoa(lineAt(data, start)), json: raw})
	}
}

func lineOfJSONError(data []byte, decoder *json.Decoder, err error) int {
	offset := decoder.InputOffset()
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.Is(err, io.ErrUnexpectedEOF):
		offset = int64(len(bytes.TrimSpace(data)))
	}
	return lineAt(data, offset)
}

func lineAt(data []byte, offset int64) int {
	return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
}

// readYAML splits at lines that begin with ---, as YAML does.
func readYAML(name string, data []byte) ([]document, error) {
	var docs []document
	var text bytes.Buffer
	first, line := 1, 0
	flush := func() error {
		converted, err := yaml.YAMLToJSONStrict(text.Bytes())
		if err != nil {
			return yamlError(name, first, err)
		}
		if string(converted) != "null" {
			docs = append(docs, document{where: strconv.Itoa(first), json: converted})
		}
		text.Reset()
		return nil
	}
	for l := range bytes.Lines(data) {
		line++
		if rest, ok := separator(l); ok {
			if err := flush(); err != nil {
				return nil, err
			}
			first, l = line, rest
		}
		text.Write(l)
	}
	if err := flush(); err != nil {
		return nil, err
	}
	return nameDocuments(name, docs), nil
}

// separator tells whether line begins a document, and returns what else is on it.
func separator(line []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	if !ok || len(rest) > 0 && !bytes.ContainsAny(rest[:1], " \t\r\n") {
		return nil, false
	}
	return append([]byte("   "), rest...), true
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// yamlError turns the error of a document that begins in line first of a file into
// one line that names the line of the file.
func yamlError(name string, first int, err error) error {
	text := err.Error()
	at := yamlLine.FindStringSubmatchIndex(text)
	if at == nil {
		return fmt.Errorf("%s:%d: not YAML: %w", name, first, err)
	}
	line, _ := strconv.Atoi(text[at[2]:at[3]])
	what, _, _ := strings.Cut(text[at[1]:], "\n")
	return fmt.Errorf("%s:%d: not YAML: %s", name, first+line-1, what)
}

// nameDocuments completes where, in which the first line of the document stands.
func nameDocuments(name string, docs []document) []document {
	for i := range docs {
		if len(docs) == 1 {
			docs[i].where = name
		} else {
			docs[i].where = fmt.Sprintf("%s: document %d (line %s)", name, i+1, docs[i].where)
		}
	}
	return docs
}
