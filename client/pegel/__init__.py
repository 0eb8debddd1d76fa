"""Pegel: a Kafka-compatible partitioned, replicated log in Python."""
