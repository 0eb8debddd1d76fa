"""``pegel chaos``: a cluster under load while everything goes wrong, and a judge of it."""
