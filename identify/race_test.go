//go:build race

package identify

const askAllocs = 45 // a ceiling, the race detector's share included
