"""What a node counts, and how it is read: declarations, counters, collectors."""
