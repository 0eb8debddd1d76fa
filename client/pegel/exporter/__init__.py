"""``pegel exporter``: a Kafka-compatible cluster as its clients see it, for Prometheus.

Serves the names of the widely used ``kafka_exporter``, so that its dashboards work unchanged, and
beside them lag in seconds and the time until a group has caught up.
"""
