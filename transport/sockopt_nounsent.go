//go:build !linux && !darwin

package transport

func limitUnsent(uintptr) {}
