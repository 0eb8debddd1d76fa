"""For tests: a real cluster of processes whose brokers may be killed, paused and restarted."""

from pegel.testing.cluster import ClusterError, LocalCluster, NodeProcess

__all__ = ["ClusterError", "LocalCluster", "NodeProcess"]
