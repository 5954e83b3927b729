// Package fake is a simulated cluster, for the tests of whoever embeds the library: a Kubernetes with its quota
// admission and quota controller, a KubeVirt that migrates virtual machines, and a clock that the test owns.
//
// It behaves as a real control plane does where quota and migrations are concerned. The order of events, phases
// and amounts is that of recordings of a real API server and the real virt-controller, and a test holds it to
// them.
//
// # Time
//
// A [Cluster] is a queue of events, worked off by one goroutine in the order of simulated time. Nothing happens
// between two calls of its methods. What is left to chance is drawn from one seed, so that the same test with
// the same [Config] is the same run. A [Violation] names the seed and the last actions.
//
// # The code under test
//
// [Cluster.Start] runs it as a [Process], which has an ordinary client-go client, and caches that are a little
// older than the API server. It is called when events of the caches concern a namespace. While it waits for an
// answer of the API server, the world goes on: between its read and its write anybody may write. It suffers the
// faults that [Cluster.Inject] decides on, and can crash between any two calls.
//
// # The limits
//
// Static limits are spec.hard of a ResourceQuota, and quota admission enforces status.hard. A process writes
// the latter through /status and nothing else of a quota; the quota controller sets it back to spec.hard
// whenever it recounts. [Cluster.Violations] tells which of these rules, and of those about migrations, were
// broken. Whether tenants got more than without migrations is for a test to compare.
//
// # What is simulated
//
//   - The API server: resourceVersion conflicts, finalizers and grace periods, and status
//     apart from spec: an update of the status keeps spec and takes annotations and labels.
//     No watches, no server-side apply, no RBAC, and no validation. A namespace need not
//     exist to have objects.
//   - Quota admission of pods, PersistentVolumeClaims and ResourceClaims on creation, with Kubernetes'
//     own words, and the defaults of LimitRanges; not their minima and maxima, and not
//     quota on other objects, whose usage is always zero.
//   - The ResourceClaims that kube-controller-manager makes from templates for pods; no devices.
//   - The quota controller (which can be down, see [Cluster.StopQuotaController]), kubelets,
//     scheduler and garbage collector, as far as pods come and go; and what keeps a claim until
//     the pods that refer to it are deleted.
//   - KubeVirt's virt-controller and virt-handler: VMIs, migrations with all their phases,
//     parallel limits, retries and their back-off, hot-plug of CPU and memory, attachment
//     pods, backend storage, backups, node drains, and the events (the core/v1 kind) that a pod of a
//     VMI could not be created; no other events. Migrations between clusters wait for ever.
//   - The lock that Rancher's webhook puts on quotas; see Config.Lock. Rancher's controller is
//     in the module examples/rancher/model.
//   - An adversary that resets status.hard; see [Cluster.ResetLimits].
package fake
