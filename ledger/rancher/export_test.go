package rancher

// Passes is whether a Loop tries again before anything changes.
var Passes = passes
