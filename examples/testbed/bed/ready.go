package bed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

// patience is how long anything may take to become ready.
const patience = 5 * time.Minute

// ready waits until the component serves.
func (b *Bed) ready(ctx context.Context, component Component) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	process := b.processes[component]
	err := poll(ctx, func(ctx context.Context) error {
		return errors.Join(process.running(), b.check(ctx, component))
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w\nthe end of %s:\n%s", component, err, process.logFile(), process.tail())
	}
	return nil
}

func (b *Bed) check(ctx context.Context, component Component) error {
	switch component {
	case Etcd:
		return ask(ctx, b.addresses.url("http", b.addresses.etcd)+"/health", `"health":"true"`)
	case APIServer:
		return b.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	case OtherAPIServer:
		client, err := kubernetes.NewForConfig(b.Other(b.config))
		if err != nil {
			return err
		}
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	case ControllerManager:
		return ask(ctx, b.addresses.url("https", b.addresses.controllerManager)+"/healthz", "ok")
	case VirtController:
		return ask(ctx, b.addresses.url("https", b.addresses.virtControllerAPI)+"/leader", `"leader":"true"`)
	default:
		return fmt.Errorf("no component %q", component)
	}
}

// asker talks to servers that sign their certificates themselves.
var asker = &http.Client{
	Timeout: 2 * time.Second,
	Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
	},
}

// ask returns nil if the answer has want in it, white space aside.
func ask(ctx context.Context, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := asker.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	answer := strings.Join(strings.Fields(string(body)), "")
	if response.StatusCode != http.StatusOK || !strings.Contains(answer, want) {
		return fmt.Errorf("%s: %s %s", url, response.Status, answer)
	}
	return nil
}

// poll asks condition until it returns nil or ctx is done, and then returns what
// condition said last.
func poll(ctx context.Context, condition func(context.Context) error) error {
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, last: %w", ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
