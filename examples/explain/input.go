package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"
	kubevirtv1 "kubevirt.io/api/core/v1"

	"github.com/vmquota/headroom/fake/recording"
	"github.com/vmquota/headroom/migration"
)

// read reads what the options name: files, a recording, or the cluster.
func (o *options) read(ctx context.Context) (*world, error) {
	if len(o.files.Filenames) == 0 {
		if o.at >= 0 {
			return nil, errors.New("--at is a moment of a recording: name one with -f")
		}
		return o.readCluster(ctx)
	}
	r, err := o.recording()
	switch {
	case err != nil:
		return nil, err
	case r != nil:
		return r.replay(o)
	case o.at >= 0:
		return nil, fmt.Errorf("--at is a moment of a recording, and %s is none", o.files.Filenames[0])
	}
	return o.readFiles()
}

// recording returns the recording that -f names, nil if it names objects. What comes on
// standard input is one if its first line is.
func (o *options) recording() (*film, error) {
	name := o.files.Filenames[0]
	if name == "-" {
		in := bufio.NewReader(o.In)
		o.In = in
		if start, _ := in.Peek(5); string(start) != `{"t":` {
			return nil, nil
		}
	} else if filepath.Ext(name) != ".jsonl" {
		return nil, nil
	}
	if len(o.files.Filenames) > 1 {
		return nil, fmt.Errorf("%s is a recording: name it alone", name)
	}
	in := o.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	events, err := recording.Read(in)
	if err == nil && len(events) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return newFilm(name, events), nil
}

// readFiles reads the objects that -f names.
func (o *options) readFiles() (*world, error) {
	w := newWorld(filesSource, o.files.Filenames...)
	w.namespace = *o.config.Namespace
	for _, name := range o.files.Filenames {
		info, statErr := os.Stat(name)
		if statErr == nil && info.Size() > 10<<20 {
			o.progress("reading %s: %d MiB", name, info.Size()>>20)
		}
		builder := resource.NewBuilder(o.config).Unstructured().Local().ContinueOnError().Flatten()
		if name == "-" {
			builder.Stream(o.In, "standard input")
			w.now = time.Now() // as for the cluster: it has just been read
		} else {
			builder.FilenameParam(false, &resource.FilenameOptions{Filenames: []string{name}, Recursive: o.files.Recursive})
		}
		if err := w.visit(builder, statErr == nil && info.IsDir()); err != nil {
			return nil, err
		}
	}
	empty := true
	for _, t := range w.tenants() {
		empty = empty && len(t.quotas)+len(t.snapshot.Migrations) == 0
		unfinished := find(t.snapshot.Migrations, func(m *kubevirtv1.VirtualMachineInstanceMigration) bool { return !m.IsFinal() })
		if unfinished != nil && len(t.snapshot.Pods) == 0 {
			w.notes = append(w.notes, "There are no Pods of virtual machines of namespace "+t.name+" in the input: what migrations charge twice is estimated from the VMs.")
		}
	}
	if empty {
		return nil, fmt.Errorf("%s: no ResourceQuota and no VirtualMachineInstanceMigration in it%s", strings.Join(o.files.Filenames, ", "), inNamespace(w.namespace))
	}
	return w, nil
}

// progress says on a terminal what takes its time.
func (o *options) progress(format string, args ...any) {
	if f, ok := o.ErrOut.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(f, format+"\n", args...)
	}
}

func inNamespace(name string) string {
	if name == "" {
		return ""
	}
	return " of namespace " + name
}

// visit takes in what builder finds. In a folder there may be files that are no objects.
func (w *world) visit(builder *resource.Builder, folder bool) error {
	var bad []error
	err := builder.Do().Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		u, ok := info.Object.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("%s is not an object", info.Source)
		}
		bad = append(bad, w.take(u))
		return nil
	})
	if err != nil && folder {
		err = w.excuse(err)
	}
	return errors.Join(append(bad, err)...)
}

// excuse counts the files of a folder that are no Kubernetes objects. It returns what is left
// of err.
func (w *world) excuse(err error) error {
	all := []error{err}
	if aggregate := utilerrors.Aggregate(nil); errors.As(err, &aggregate) {
		all = utilerrors.Flatten(aggregate).Errors()
	}
	return utilerrors.NewAggregate(slices.DeleteFunc(all, func(err error) bool {
		denied := errors.Is(err, os.ErrPermission)
		if !denied {
			w.passed["no Kubernetes object"]++
		}
		return !denied
	}))
}

// A read is what is asked of the cluster about one kind.
type read struct {
	resource, labels, fields string
	forbidden                string // what is not known if it must not be read; empty: that is an error
	missing                  string // what to note if the cluster does not know the kind
}

// reads are in this order: a migration is read before its pods, and these before the quota that
// counts them. Of the pods only those that KubeVirt starts for virtual machines.
func reads() []read {
	var pods, refusals metav1.ListOptions
	migration.SelectPods(&pods)
	migration.SelectRefusals(&refusals)
	const (
		events  = "Events cannot be listed: "
		devices = " cannot be listed: what devices of virtual machines are charged is not known in full."
	)
	return []read{
		{resource: "namespaces", forbidden: "-"},
		{
			resource: "virtualmachineinstancemigrations.v1.kubevirt.io",
			missing:  "This cluster has no KubeVirt (it knows no VirtualMachineInstanceMigrations): the quotas are shown as they are.",
		},
		{resource: "virtualmachineinstances.v1.kubevirt.io"},
		{resource: "limitranges"},
		{resource: "persistentvolumeclaims"},
		{resource: "pods", labels: pods.LabelSelector},
		{resource: "resourceclaims.v1.resource.k8s.io", forbidden: "ResourceClaims" + devices},
		{resource: "deviceclasses.v1.resource.k8s.io", forbidden: "DeviceClasses" + devices},
		{resource: "events", fields: refusals.FieldSelector, forbidden: events + "a target pod that needs more than its source shows is not seen."},
		{resource: "events", fields: "reason=FailedResourceClaimCreation,involvedObject.kind=Pod", forbidden: events + "that a ResourceClaim was refused is not seen."},
		{resource: "events", fields: "involvedObject.kind=ResourceQuota", forbidden: events + "what headroom has told about the quotas is not shown."},
		{resource: "resourcequotas"},
	}
}

// readCluster reads the cluster that the kubeconfig names.
func (o *options) readCluster(ctx context.Context) (*world, error) {
	o.config.WrapConfigFn = func(c *rest.Config) *rest.Config {
		c.QPS, c.Burst, c.WarningHandler = 50, 100, rest.NoWarnings{}
		return c
	}
	w := newWorld(clusterSource)
	w.now = time.Now()
	loader := o.config.ToRawKubeConfigLoader()
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, err
	}
	if !o.allNamespaces {
		w.namespace = namespace
	}
	if raw, err := loader.RawConfig(); err == nil {
		w.source.Context = cmp.Or(*o.config.Context, raw.CurrentContext)
	}
	mapper, err := o.config.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	for _, r := range reads() {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if kind, _ := schema.ParseResourceArg(r.resource); kind != nil {
			if _, err := mapper.KindFor(*kind); meta.IsNoMatchError(err) {
				w.note(r.missing)
				continue
			}
		}
		o.progress("reading %s", r.resource)
		args := []string{r.resource}
		if r.resource == "namespaces" && w.namespace != "" { // one that is misspelt is an error
			args = append(args, w.namespace)
		}
		err := w.visit(o.builder(w).LabelSelectorParam(r.labels).FieldSelectorParam(r.fields).ResourceTypeOrNameArgs(true, args...), false)
		switch {
		case apierrors.IsForbidden(err) && r.forbidden != "":
			w.note(strings.TrimPrefix(r.forbidden, "-"))
		case err != nil && len(args) > 1:
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("cannot list %s%s: %w", strings.Split(r.resource, ".")[0], inNamespace(w.namespace), err)
		}
	}
	return w, nil
}

func (w *world) note(sentence string) {
	if sentence != "" {
		w.notes = append(w.notes, sentence)
	}
}

func (o *options) builder(w *world) *resource.Builder {
	return resource.NewBuilder(o.config).Unstructured().Flatten().RequestChunksOf(500).
		NamespaceParam(w.namespace).AllNamespaces(w.namespace == "")
}

// readLease reads the Lease of the controller's leader. It is kept if it exists.
func (w *world) readLease(o *options) error {
	namespace, name, ok := strings.Cut(o.lease, "/")
	if !ok {
		return fmt.Errorf("--lease: %q is not of the form namespace/name", o.lease)
	}
	err := w.visit(resource.NewBuilder(o.config).Unstructured().Flatten().NamespaceParam(namespace).ResourceTypeOrNameArgs(true, "leases.coordination.k8s.io", name), false)
	switch {
	case apierrors.IsForbidden(err):
		w.notes = append(w.notes, "Lease "+o.lease+" cannot be read: whether a controller leads is not known.")
		return nil
	case apierrors.IsNotFound(err):
		w.noLease = true
		return nil
	}
	return err
}
