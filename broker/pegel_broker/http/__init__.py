"""The http listener: metrics, health and a JSON view of the node."""
