package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

// build is which program this is.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // from a checkout with changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (build) event() string { return "version" }

func (r build) text(s style) string {
	line := fmt.Sprintf("plexus %s", s.bold(r.Version))
	if r.Revision != "" {
		line += " " + r.Revision[:min(12, len(r.Revision))]
		if r.Modified {
			line += " with changes"
		}
	}
	return line + fmt.Sprintf(", %s, %s", r.Go, r.Platform)
}

func (versionCmd) Run(e *env) error {
	r := build{Version: version(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, kv := range info.Settings {
			switch kv.Key {
			case "vcs.revision":
				r.Revision = kv.Value
			case "vcs.modified":
				r.Modified = kv.Value == "true"
			}
		}
	}
	e.out.print(r)
	return nil
}
