package rancher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// maxTries is how often a patch is tried on fresh data, before a conflict is an error.
const maxTries = 5

// A Patch is a patch of a ResourceQuota, as a client is asked for it.
type Patch struct {
	Namespace, Name string
	Type            types.PatchType
	Data            []byte
	Subresources    []string
}

// Verbs are the calls of the undecorated client that a [Patch] may need: of the quota that
// it names, and Patch with what is in it.
type Verbs struct {
	Get    func() (*corev1.ResourceQuota, error)
	Update func(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error)
	Patch  func() (*corev1.ResourceQuota, error)
}

// Patch carries out a patch, and returns the answer as [Shim.Shown] says.
//
// One that does not concern spec or the annotations of a raise is sent as it is. A merge
// patch, or a strategic one, that does is applied to what is shown, and the outcome is
// written by an update, as [Shim.Stored] says; a conflict is resolved on fresh data,
// unless the patch has a resourceVersion. The annotations of a raise stay what they were,
// whatever the patch says of them.
//
// A JSON patch and a patch of the status that do, a server-side apply, which takes away
// limits by not naming them, and what cannot be decoded, are refused: the error is an
// [Error] with ErrUntranslatable inside.
func (s *Shim) Patch(ctx context.Context, p Patch, verbs Verbs) (*corev1.ResourceQuota, error) {
	if s.Disabled() {
		return verbs.Patch()
	}
	concerns, err := p.concerns()
	if err != nil {
		return nil, &Error{Namespace: p.Namespace, Quota: p.Name, Err: fmt.Errorf("%w: %w", ErrUntranslatable, err)}
	}
	if !concerns {
		answer, err := verbs.Patch()
		return s.Shown(answer), err
	}
	for try := 1; ; try++ {
		answer, again, err := s.translate(ctx, p, verbs)
		if again && apierrors.IsConflict(err) && try < maxTries {
			continue
		}
		return s.Shown(answer), err
	}
}

// translate carries out a patch by an update. Again says that it may be tried again after
// a conflict.
func (s *Shim) translate(ctx context.Context, p Patch, verbs Verbs) (answer *corev1.ResourceQuota, again bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	live, err := verbs.Get()
	if err != nil {
		return nil, false, err
	}
	patched, err := p.applyTo(s.Shown(live))
	if err != nil {
		return nil, false, &Error{Namespace: p.Namespace, Quota: p.Name, Err: fmt.Errorf("%w: %w", ErrUntranslatable, err)}
	}
	again = patched.ResourceVersion == live.ResourceVersion
	patched.Status = live.Status
	for _, name := range ours {
		delete(patched.Annotations, name)
		if value, has := live.Annotations[name]; has {
			if patched.Annotations == nil {
				patched.Annotations = map[string]string{}
			}
			patched.Annotations[name] = value
		}
	}
	stored, err := s.Stored(ctx, patched)
	if err != nil {
		return nil, false, err
	}
	answer, err = verbs.Update(stored)
	return answer, again, err
}

// concerns reports whether the patch may change the limits, or what is kept beside them.
// The error says why it cannot be translated.
func (p Patch) concerns() (bool, error) {
	switch p.Type {
	case types.MergePatchType, types.StrategicMergePatchType:
		patch, err := decode(p.Data)
		if err != nil {
			return false, err
		}
		_, spec := patch["spec"]
		concerns := touches(patch, "metadata", "annotations")
		if len(p.Subresources) == 0 {
			return concerns || spec, nil
		}
		if concerns { // there is no update that could say it
			return false, errors.New("a patch of the status that names the annotations of a raise")
		}
		return false, nil
	case types.JSONPatchType:
		return false, refuseJSON(p.Data)
	default:
		return false, fmt.Errorf("patch type %q", p.Type)
	}
}

// touches reports whether patch says anything about the annotations of a raise, which are
// at path: it takes away an object on the way to them, has a directive there, or names
// one of them.
func touches(patch map[string]any, path ...string) bool {
	for name := range patch {
		if strings.HasPrefix(name, "$") || len(path) == 0 && slices.Contains(ours, name) {
			return true
		}
	}
	if len(path) == 0 {
		return false
	}
	next, has := patch[path[0]]
	if !has {
		return false
	}
	inside, is := next.(map[string]any)
	return !is || touches(inside, path[1:]...)
}

// refuseJSON returns why a JSON patch cannot be sent as it is, nil if it can.
func refuseJSON(data []byte) error {
	var operations []struct {
		Op   string
		Path string
		From *string
	}
	if err := json.Unmarshal(data, &operations); err != nil {
		return err
	}
	for _, operation := range operations {
		pointers := []string{operation.Path}
		if operation.From != nil {
			pointers = append(pointers, *operation.From)
		}
		for _, pointer := range pointers {
			if pointsAtLimits(pointer) {
				return fmt.Errorf("the operation %s of %q", operation.Op, pointer)
			}
		}
	}
	return nil
}

// pointsAtLimits reports whether a JSON pointer leads to spec, to the annotations of a
// raise, or to what they are in.
func pointsAtLimits(pointer string) bool {
	path := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i := range path {
		path[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(path[i])
	}
	switch {
	case pointer == "" || path[0] == "spec":
		return true
	case path[0] != "metadata":
		return false
	case len(path) == 1:
		return true
	case path[1] != "annotations":
		return false
	default:
		return len(path) == 2 || slices.Contains(ours, path[2])
	}
}

// applyTo returns what the patch makes of rq. Rq is not modified.
func (p Patch) applyTo(rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
	original, err := json.Marshal(rq)
	if err != nil {
		return nil, err
	}
	var outcome []byte
	if p.Type == types.StrategicMergePatchType {
		outcome, err = strategicpatch.StrategicMergePatch(original, p.Data, corev1.ResourceQuota{})
	} else {
		outcome, err = mergePatch(original, p.Data)
	}
	if err != nil {
		return nil, err
	}
	patched := &corev1.ResourceQuota{}
	if err := json.Unmarshal(outcome, patched); err != nil {
		return nil, err
	}
	return patched, nil
}

// mergePatch applies a JSON merge patch (RFC 7386) of an object.
func mergePatch(original, patch []byte) ([]byte, error) {
	target, err := decode(original)
	if err != nil {
		return nil, err
	}
	changes, err := decode(patch)
	if err != nil {
		return nil, err
	}
	merge(target, changes)
	return json.Marshal(target)
}

func merge(target, changes map[string]any) {
	for name, change := range changes {
		inside, isObject := change.(map[string]any)
		switch {
		case change == nil:
			delete(target, name)
		case isObject:
			next, is := target[name].(map[string]any)
			if !is {
				next = map[string]any{}
			}
			merge(next, inside)
			target[name] = next
		default:
			target[name] = change
		}
	}
}

// decode reads a JSON object, its numbers as they are written.
func decode(data []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var members map[string]any
	if err := decoder.Decode(&members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errNull
	}
	if decoder.More() {
		return nil, errors.New("more than one JSON object")
	}
	return members, nil
}
