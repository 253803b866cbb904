//go:build !unix

package muxertest

func cpu() int64 { return 0 }
