"""Sharing a cluster's load: a pure planner, and what carries its plans out."""
