"""The whole cluster, real node and client code, on simulated time, network and disks."""
