"""The broker of a Pegel cluster: logs, replication, request handlers, node."""
