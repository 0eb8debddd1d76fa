"""Load generators and demonstrations for any Kafka-compatible cluster."""
