package applier

// DisabledAnnotation is the kill switch of one ResourceQuota, if its value is "true":
// headroom does not write to it.
const DisabledAnnotation = "headroom.vmquota.io/disabled"
