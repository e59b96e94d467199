//go:build !race

package faults_test

const thinned = 1
