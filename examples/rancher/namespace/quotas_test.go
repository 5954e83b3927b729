package namespace

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/vmquota/headroom/ledger/applier"
	"github.com/vmquota/headroom/ledger/rancher"
	"github.com/vmquota/headroom/quota"
)

var ctx = context.Background()

func list(text string) corev1.ResourceList {
	l := corev1.ResourceList{}
	for _, part := range strings.Fields(text) {
		name, amount, _ := strings.Cut(part, "=")
		l[corev1.ResourceName(name)] = resource.MustParse(amount)
	}
	return l
}

func hard(rq *corev1.ResourceQuota) string {
	value, err := json.Marshal(rq.Spec.Hard)
	if err != nil {
		return err.Error()
	}
	return string(value)
}

const four, five, six, seven = `{"limits.cpu":"4"}`, `{"limits.cpu":"5"}`, `{"limits.cpu":"6"}`, `{"limits.cpu":"7"}`

func static() *corev1.ResourceQuota {
	return &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "q", UID: "u"},
		Spec:       corev1.ResourceQuotaSpec{Hard: list("limits.cpu=4")},
	}
}

func raised() *corev1.ResourceQuota {
	return applier.WithLimits(static(), list("limits.cpu=4"), list("limits.cpu=5"))
}

func inFlight() []quota.Migration {
	return []quota.Migration{{UID: "m", State: quota.Charged, Surge: list("limits.cpu=1")}}
}

func (s *server) stored() *corev1.ResourceQuota {
	s.t.Helper()
	rq, err := s.Cache().Get("n", "q")
	require.NoError(s.t, err)
	return rq
}

func TestNilQuotasDecorateNothing(t *testing.T) {
	s := newServer(t)
	require.Same(t, s, (*Quotas)(nil).Decorate(s))
}

func TestClientReads(t *testing.T) {
	s := newServer(t, raised())
	_, c := s.decorated()
	got, err := c.Get("n", "q", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, four, hard(got))
	all, err := c.List("n", metav1.ListOptions{})
	require.NoError(t, err)
	require.Equal(t, four, hard(&all.Items[0]))
	w, err := c.Watch("n", metav1.ListOptions{})
	require.NoError(t, err)
	go s.watch.Modify(raised())
	event := <-w.ResultChan()
	require.Equal(t, four, hard(event.Object.(*corev1.ResourceQuota)))
	w.Stop()
	_, err = c.Get("n", "none", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
	require.Equal(t, five, hard(s.stored()))
}

func TestClientWrites(t *testing.T) {
	s := newServer(t)
	record, c := s.decorated()
	require.NoError(t, record.Replace(ctx, "n", inFlight()))
	answer, err := c.Create(static())
	require.NoError(t, err)
	require.Equal(t, four, hard(answer))
	require.Equal(t, five, hard(s.stored()))

	stale := answer.DeepCopy()
	answer.Spec.Hard = list("limits.cpu=6")
	answer, err = c.Update(answer)
	require.NoError(t, err)
	require.Equal(t, six, hard(answer))
	require.Equal(t, seven, hard(s.stored()))
	_, err = c.Update(stale)
	require.True(t, apierrors.IsConflict(err))
	require.Equal(t, seven, hard(s.stored()))

	answer.Status.Used = list("limits.cpu=3")
	answer, err = c.UpdateStatus(answer)
	require.NoError(t, err)
	require.Equal(t, six, hard(answer))
	require.Equal(t, seven, hard(s.stored()))
	updated, err := c.Updater()(answer)
	require.NoError(t, err)
	require.Equal(t, six, hard(updated.(*corev1.ResourceQuota)))
	require.Equal(t, seven, hard(s.stored()))

	require.NoError(t, record.Replace(ctx, "n", nil))
	_, err = c.Updater()(updated)
	require.NoError(t, err)
	require.Equal(t, six, hard(s.stored()))
	require.Empty(t, s.stored().Annotations)

	require.NoError(t, c.Delete("n", "q", nil))
	require.True(t, apierrors.IsNotFound(c.Delete("n", "q", nil)))
	_, err = c.Create(static())
	require.NoError(t, err)
	require.NoError(t, c.DeleteCollection("n", metav1.DeleteOptions{}, metav1.ListOptions{}))
	require.Empty(t, s.quotas.List())
}

func TestClientPatches(t *testing.T) {
	s := newServer(t, raised())
	record, c := s.decorated()
	require.NoError(t, record.Replace(ctx, "n", inFlight()))
	answer, err := c.Patch("n", "q", types.MergePatchType, []byte(`{"spec":{"hard":{"limits.cpu":"6"}}}`))
	require.NoError(t, err)
	require.Equal(t, six, hard(answer))
	require.Equal(t, seven, hard(s.stored()))
	require.Empty(t, s.patched, "it was translated")
	answer, err = c.Patch("n", "q", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	require.NoError(t, err)
	require.Equal(t, six, hard(answer))
	require.NotEmpty(t, s.patched)
	_, err = c.Patch("n", "q", types.ApplyPatchType, []byte(`{}`))
	require.ErrorIs(t, err, rancher.ErrUntranslatable)
}

func TestImpersonatedClient(t *testing.T) {
	s := newServer(t, raised())
	_, c := s.decorated()
	other, err := c.WithImpersonation(rest.ImpersonationConfig{UserName: "other"})
	require.NoError(t, err)
	require.Equal(t, "other", s.impersonated)
	got, err := other.Get("n", "q", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, four, hard(got))
}

func TestCache(t *testing.T) {
	plain := static()
	plain.Name = "plain"
	s := newServer(t, raised(), plain)
	_, c := s.decorated()
	cached := c.Cache()
	cached.AddIndexer("cpu", func(rq *corev1.ResourceQuota) ([]string, error) { return []string{hard(rq)}, nil })
	indexed, err := cached.GetByIndex("cpu", four)
	require.NoError(t, err)
	require.Len(t, indexed, 2, "what is shown is indexed")
	all, err := cached.List("n", labels.Everything())
	require.NoError(t, err)
	for _, rq := range append(indexed, all...) {
		require.Equal(t, four, hard(rq))
	}
	got, err := cached.Get("n", "q")
	require.NoError(t, err)
	require.Equal(t, four, hard(got))
	inner, err := s.Cache().Get("n", "plain")
	require.NoError(t, err)
	got, err = cached.Get("n", "plain")
	require.NoError(t, err)
	require.Same(t, inner, got)
	_, err = cached.Get("n", "none")
	require.True(t, apierrors.IsNotFound(err))

	item, _, err := c.Informer().GetIndexer().GetByKey("n/q")
	require.NoError(t, err)
	require.Equal(t, four, hard(item.(*corev1.ResourceQuota)))
	require.Equal(t, five, hard(s.stored()))
}

func TestHandlers(t *testing.T) {
	s := newServer(t, raised())
	record, c := s.decorated()
	require.NoError(t, record.Replace(ctx, "n", inFlight()))
	var seen []string
	c.OnChange(ctx, "change", func(key string, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
		if rq == nil {
			seen = append(seen, key+" is gone")
			return nil, nil
		}
		seen = append(seen, key+" "+hard(rq))
		return rq, nil
	})
	c.AddGenericHandler(ctx, "generic", func(_ string, o runtime.Object) (runtime.Object, error) {
		seen = append(seen, hard(o.(*corev1.ResourceQuota)))
		return nil, nil
	})
	answer, err := s.handlers[0]("n/q", s.stored())
	require.NoError(t, err)
	require.Same(t, s.stored(), answer, "the handlers after it see what is stored")
	answer, err = s.handlers[1]("n/q", s.stored())
	require.NoError(t, err)
	require.Nil(t, answer)
	answer, err = s.handlers[0]("n/q", nil)
	require.NoError(t, err)
	require.Nil(t, answer)
	require.Equal(t, []string{"n/q " + four, four, "n/q is gone"}, seen)
}

// The finalizers that wrangler adds for these handlers do not lower a raise.
func TestRemoveHandlers(t *testing.T) {
	s := newServer(t, raised())
	record, c := s.decorated()
	require.NoError(t, record.Replace(ctx, "n", inFlight()))
	removed := ""
	c.OnRemove(ctx, "remove", func(_ string, rq *corev1.ResourceQuota) (*corev1.ResourceQuota, error) {
		removed = hard(rq)
		return nil, nil
	})
	c.AddGenericRemoveHandler(ctx, "other", func(string, runtime.Object) (runtime.Object, error) { return nil, nil })
	for _, handler := range s.handlers {
		_, err := handler("n/q", s.stored())
		require.NoError(t, err)
	}
	require.Len(t, s.stored().Finalizers, 2)
	require.Equal(t, five, hard(s.stored()))

	gone := s.stored().DeepCopy()
	gone.DeletionTimestamp = &metav1.Time{}
	gone = s.put(gone)
	_, err := s.handlers[0]("n/q", gone)
	require.NoError(t, err)
	require.Equal(t, four, removed)
	require.Len(t, s.stored().Finalizers, 1)
	require.Equal(t, five, hard(s.stored()))
}
