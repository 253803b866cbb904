package link

import "testing"

func TestBorrow(t *testing.T) {
	for _, c := range []struct{ n, want int }{
		{0, Small}, {Small, Small}, {Small + 1, Large}, {65537, Large}, {Large + 1, Bulk}, {Bulk, Bulk}, {Bulk + 1, Batch}, {Batch, Batch},
	} {
		b := Borrow(c.n)
		if len(*b) != c.want {
			t.Errorf("%d: got %d bytes, want %d", c.n, len(*b), c.want)
		}
		GiveBack(b)
	}
}

func TestTurn(t *testing.T) {
	turn := NewTurn()
	turn.Lock()
	if turn.TryLock() {
		t.Error("taken twice")
	}
	turn.Unlock()
	if !turn.TryLock() {
		t.Error("not free")
	}
}
