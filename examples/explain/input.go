package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vmquota/headroom/fake/recording"
)

// An input is what -f names: recordings, or objects, never both.
type input struct {
	recordings []namedRecording
	objects    objectSet
	names      []string
}

type namedRecording struct {
	name   string
	events []recording.Event // at least one
}

// begin is when the first event came.
func (r namedRecording) begin() time.Duration { return slices.MinFunc(r.events, byTime).At }

// end is when the last event came.
func (r namedRecording) end() time.Duration { return slices.MaxFunc(r.events, byTime).At }

func byTime(a, b recording.Event) int { return cmp.Compare(a.At, b.At) }

// extensions are those of the files that are read in a directory.
var extensions = []string{".yaml", ".yml", ".json", ".jsonl"}

// readInput reads all of paths. Objects without a namespace are put into
// namespace, or into default.
func readInput(paths []string, stdin io.Reader, namespace string, p *progress) (*input, error) {
	if namespace == "" {
		namespace = "default"
	}
	in := &input{objects: newObjectSet(namespace)}
	for _, path := range paths {
		if path == "-" {
			if err := in.read("standard input", stdin, p); err != nil {
				return nil, err
			}
			continue
		}
		files, err := expand(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := in.open(file, p); err != nil {
				return nil, err
			}
		}
	}
	if len(in.recordings) > 0 && in.objects.files > 0 {
		return nil, fmt.Errorf("%s is a recording and cannot be mixed with other files", in.recordings[0].name)
	}
	return in, nil
}

// expand returns path, or what is to be read in it if it is a directory.
func expand(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, readError(path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, readError(path, err)
	}
	var files []string
	for _, entry := range entries {
		hidden := strings.HasPrefix(entry.Name(), ".")
		if !entry.IsDir() && !hidden && slices.Contains(extensions, filepath.Ext(entry.Name())) {
			files = append(files, filepath.Join(path, entry.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no %s file in it", path, strings.Join(extensions, ", "))
	}
	return files, nil
}

func (in *input) open(file string, p *progress) error {
	f, err := os.Open(file)
	if err != nil {
		return readError(file, err)
	}
	defer f.Close()
	return in.read(file, f, p)
}

// readError names the path once.
func readError(path string, err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}

func (in *input) read(name string, r io.Reader, p *progress) error {
	data, err := io.ReadAll(p.reader(name, r))
	if err != nil {
		return readError(name, err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("%s: it is empty", name)
	}
	in.names = append(in.names, name)
	if filepath.Ext(name) == ".jsonl" || isRecording(data) {
		return in.readRecording(name, data)
	}
	return in.objects.readFile(name, data, p)
}

// isRecording tells whether the first line is an event: recordings that come from
// standard input have no extension.
func isRecording(data []byte) bool {
	line, _, _ := bytes.Cut(bytes.TrimLeft(data, " \t\r\n"), []byte("\n"))
	_, err := recording.Read(bytes.NewReader(line))
	return err == nil
}

func (in *input) readRecording(name string, data []byte) error {
	events, err := recording.Read(bytes.NewReader(data))
	var bad *recording.LineError
	switch {
	case errors.As(err, &bad):
		return fmt.Errorf("%s:%d: %w", name, bad.Line, bad.Err)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	in.recordings = append(in.recordings, namedRecording{name: name, events: events})
	return nil
}

// scene is the state of the input: of recordings at opts.at.
func (in *input) scene(opts options) (scene, error) {
	var s scene
	var err error
	if len(in.recordings) > 0 {
		s, err = replayAll(in.recordings, opts.at)
	} else {
		s, err = in.objectScene(opts)
	}
	if err != nil {
		return scene{}, err
	}
	return s, s.narrow(opts.namespace, in.names)
}

func (in *input) objectScene(opts options) (scene, error) {
	if opts.at != nil {
		return scene{}, fmt.Errorf("--at is a moment of a recording, and %s is none", in.names[0])
	}
	tenants, err := in.objects.tenants()
	if err != nil {
		return scene{}, err
	}
	return scene{
		source:  source{Kind: filesSource, Files: in.names},
		tenants: tenants,
		notes:   in.objects.gaps(),
	}, nil
}

// narrow keeps namespace only; an empty one keeps all.
func (s *scene) narrow(namespace string, inputs []string) error {
	names := make([]string, 0, len(s.tenants))
	for _, t := range s.tenants {
		names = append(names, t.name)
	}
	where := strings.Join(inputs, ", ")
	switch {
	case len(names) == 0:
		return fmt.Errorf("%s: no ResourceQuota and no VirtualMachineInstanceMigration in it", where)
	case namespace == "":
		return nil
	case !slices.Contains(names, namespace):
		return fmt.Errorf("%s: nothing of namespace %s in it, but of %s", where, namespace, strings.Join(names, ", "))
	}
	s.tenants = slices.DeleteFunc(s.tenants, func(t tenant) bool { return t.name != namespace })
	return nil
}

// notes are what the user should know beside the output.
func (in *input) notes() []string { return in.objects.skippedNote() }
