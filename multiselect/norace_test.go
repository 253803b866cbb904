//go:build !race

package multiselect

const raceEnabled = false
