"""For tests: real clusters of processes, which may be killed, paused, restarted, cut."""

from pegel.testing.cluster import ClusterError, LocalCluster, NodeProcess
from pegel.testing.network import FaultyNetwork
from pegel.testing.proxied import ProxiedCluster

__all__ = ["ClusterError", "FaultyNetwork", "LocalCluster", "NodeProcess", "ProxiedCluster"]
