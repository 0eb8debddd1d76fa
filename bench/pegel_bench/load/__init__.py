"""Load generators: what runs in the worker processes of ``pegel bench``."""
