//go:build !race

package identify

const askAllocs = 32 // a ceiling
