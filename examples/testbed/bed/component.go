package bed

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A Component is one of the real processes of a bed.
type Component string

// The components of a bed, in the order in which they are started.
const (
	Etcd              Component = "etcd"
	APIServer         Component = "kube-apiserver"
	OtherAPIServer    Component = "other-kube-apiserver" // if Config.APIServers is two
	ControllerManager Component = "kube-controller-manager"
	VirtController    Component = "virt-controller"
)

// all are the components that a bed can have, in the order in which they are started.
var all = []Component{Etcd, APIServer, OtherAPIServer, ControllerManager, VirtController}

// Components returns the components that the bed has, in the order in which they are started.
func (b *Bed) Components() []Component {
	return slices.DeleteFunc(slices.Clone(all), func(c Component) bool { return b.processes[c] == nil })
}

// controllers are those that kube-controller-manager runs.
var controllers = []string{
	"clusterrole-aggregation-controller",
	"deployment-controller",
	"disruption-controller",
	"garbage-collector-controller",
	"job-controller",
	"namespace-controller",
	"pod-garbage-collector-controller",
	"replicaset-controller",
	"resourceclaim-controller",
	"resourcequota-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"validatingadmissionpolicy-status-controller",
}

// addresses are where the components of one bed listen.
type addresses struct {
	host                                                                string
	etcd, etcdPeer, api, otherAPI, controllerManager, virtControllerAPI int
}

func (a addresses) url(scheme string, port int) string {
	return fmt.Sprintf("%s://%s:%d", scheme, a.host, port)
}

// arguments returns the program and the command line of a component.
func (b *Bed) arguments(component Component) (program string, args []string) {
	a := b.addresses
	switch component {
	case Etcd:
		return b.binaries.controlPlane, []string{
			"etcd",
			"--data-dir=" + b.path("etcd"),
			"--client-url=" + a.url("http", a.etcd),
			"--peer-url=" + a.url("http", a.etcdPeer),
		}
	case APIServer, OtherAPIServer:
		port := a.api
		if component == OtherAPIServer {
			port = a.otherAPI
		}
		return b.binaries.controlPlane, append([]string{
			"kube-apiserver",
			"--etcd-servers=" + a.url("http", a.etcd),
			"--bind-address=" + a.host,
			"--advertise-address=" + a.host,
			fmt.Sprintf("--secure-port=%d", port),
			"--endpoint-reconciler-type=none",
			"--service-cluster-ip-range=10.0.0.0/24",
			"--tls-cert-file=" + b.path(serverCertificate),
			"--tls-private-key-file=" + b.path(serverKey),
			"--client-ca-file=" + b.path("ca.crt"),
			"--authorization-mode=RBAC",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + b.path("tokens.key"),
			"--service-account-signing-key-file=" + b.path("tokens.key"),
			"--enable-admission-plugins=LimitRanger,MutatingAdmissionPolicy,ResourceQuota,ValidatingAdmissionPolicy",
			"--allow-privileged=true",
			"--audit-policy-file=" + b.path("audit-policy.yaml"),
			"--audit-log-path=" + b.auditLog(component),
			"--audit-log-mode=blocking",
			"--audit-log-maxsize=100000", // in MB: it must not start another file
			"--profiling=false",
		}, b.versions.apiServerFlags()...)
	case ControllerManager:
		args := []string{
			"kube-controller-manager",
			"--kubeconfig=" + b.path("kube-controller-manager.kubeconfig"),
			"--bind-address=" + a.host,
			fmt.Sprintf("--secure-port=%d", a.controllerManager),
			"--cert-dir=" + b.path("kube-controller-manager-certificates"),
			"--root-ca-file=" + b.path("ca.crt"),
			"--controllers=" + strings.Join(controllers, ","),
			"--use-service-account-credentials=true",
			"--service-account-private-key-file=" + b.path("tokens.key"),
			"--leader-elect=false",
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			"--profiling=false",
		}
		if b.quotaSync > 0 {
			args = append(args, "--resource-quota-sync-period="+b.quotaSync.String())
		}
		return b.binaries.controlPlane, args
	case VirtController:
		return b.binaries.kubevirt, []string{
			"virt-controller",
			"--kubeconfig=" + b.path("virt-controller.kubeconfig"),
			"--listen=" + a.host,
			fmt.Sprintf("--port=%d", a.virtControllerAPI),
			"--prom-cert-file=" + b.path(serverCertificate),
			"--prom-key-file=" + b.path(serverKey),
			"--launcher-image=registry.test/virt-launcher:" + b.versions.KubeVirt,
			"--exporter-image=registry.test/virt-exportserver:" + b.versions.KubeVirt,
		}
	default:
		return "", nil
	}
}

func (b *Bed) path(name string) string {
	return filepath.Join(b.dir, name)
}
