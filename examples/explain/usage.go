package main

import "strings"

// usage is the help text of the program that was called as arg.
func usage(arg string) string {
	return strings.ReplaceAll(`{} shows what the quota of a namespace must be while its virtual machines
live-migrate, and why.

While a VM live-migrates, its old and its new pod both count against the ResourceQuota.
For each quota {} shows what the tenant was given, what is used, how much of that is
there only because of migrations, and what status.hard must be now; then each migration, what
it is charged twice, whether it gets room, and why.

Usage:
  {} -f FILE|DIR|-   objects in YAML or JSON, or a recording (.jsonl)
  {}                 a cluster, by the usual rules of kubeconfig

Examples:
  {} -f recording.jsonl --at 2s
  {} -f recording.jsonl -o svg > timeline.svg
  kubectl get resourcequota,limitrange,pod,pvc,vmi,vmim -n tenant -o yaml | {} -f -
  {} -n tenant --budget limits.memory=8Gi
  {} -A -o json

What is read:
  -f, --filename FILE       a file; a directory: its .yaml, .yml, .json and .jsonl files, not
                            those of its subdirectories; -: standard input. May be repeated
      --at TIME             the moment of the recording: 3.5s, or 3.5. Default: the end
  -n, --namespace NAME      this namespace. Default: all that are in the files, or the one of
                            the kubeconfig's context
  -A, --all-namespaces      all namespaces
      --kubeconfig FILE     instead of $KUBECONFIG or ~/.kube/config
      --context NAME        instead of the kubeconfig's current context

How it is decided:
      --budget AMOUNTS      at most so much for migrations at the same time, per quota:
                            limits.memory=8Gi,limits.cpu=4. Default: no bound
      --strict              regular usage above the static limit does not lift the limit

What is written:
  -o, --output FORMAT       table, json, yaml, or svg (a timeline of one recording).
                            Default: table
      --resource NAMES      with -o svg: draw only these, as limits.memory,pods
  -h, --help                this text

Exit codes: 0; 1: the input is bad, or the cluster did not answer; 2: wrong usage.
`, "{}", programName(arg))
}
