package kv

import "strings"

// Item is a key with its value.
type Item struct {
	Key   string
	Value string
}

// Range says which keys List returns.
type Range struct {
	// Prefix is how the keys begin; "" for all keys.
	Prefix string

	// After is the key after which the list begins; "" for the first.
	After string

	// Limit is how many keys the list has at most, and Bytes how many bytes its
	// keys and values have together, with one item more; 0 for no limit.
	Limit int
	Bytes int

	// KeysOnly leaves the values out.
	KeysOnly bool
}

// List returns keys in the order of their bytes. more is true if a limit has ended
// the list: the rest follows after its last key. The time it takes grows with the
// length of the list, not with the number of keys in the store.
func (s *Store) List(r Range) (items []Item, more bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	bytes := 0
	s.keys.AscendGreaterOrEqual(max(r.Prefix, r.After), func(key string) bool {
		switch {
		case key == r.After && key != "":
			return true
		case !strings.HasPrefix(key, r.Prefix):
			return false
		case r.Limit > 0 && len(items) == r.Limit, r.Bytes > 0 && bytes >= r.Bytes:
			more = true
			return false
		}
		item := Item{Key: key}
		if !r.KeysOnly {
			item.Value, _ = s.lookup(key)
		}
		bytes += len(item.Key) + len(item.Value)
		items = append(items, item)
		return true
	})
	return items, more
}
