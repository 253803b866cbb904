//go:build !race

package quic_test

// raceEnabled tells that memory is not what it is otherwise.
const raceEnabled = false
