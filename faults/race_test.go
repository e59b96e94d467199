//go:build race

package faults_test

// thinned is how many cases of the model make one that runs: the race detector
// makes each ten times as dear.
const thinned = 16
