package slots

import "testing"

func TestSlots(t *testing.T) {
	s := Slots[string]{Each: 2, All: 3}
	for i, step := range []struct {
		free bool
		key  string
		want bool
	}{
		{key: "x", want: true},
		{key: "x", want: true},
		{key: "x", want: false}, // Each
		{key: "y", want: true},
		{key: "z", want: false}, // All
		{key: "x", free: true},
		{key: "z", want: true},
		{key: "x", want: false},
	} {
		if step.free {
			s.Free(step.key)
			continue
		}
		if got := s.Take(step.key); got != step.want {
			t.Errorf("step %d: Take(%s) = %v, want %v", i, step.key, got, step.want)
		}
	}
	for _, k := range []string{"x", "y", "z"} {
		s.Free(k)
	}
	if len(s.by) != 0 || s.all != 0 {
		t.Errorf("%d keys and %d slots remain", len(s.by), s.all)
	}
	if new(Slots[int]).Take(1) {
		t.Error("the zero value has room")
	}
}
