"""The Raft-replicated controller of a Pegel cluster."""
