//go:build race

package plexus_test

const raceEnabled = true
