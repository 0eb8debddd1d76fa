"""Where Apache Kafka's jars are, for tests that hold Pegel to its Java tools.

``PEGEL_KAFKA_CLASSPATH`` is a Java class path, or ``maven``: then Maven brings them, once.
"""

from __future__ import annotations

import os

from pegel_bench.kafka import classpath

VARIABLE = "PEGEL_KAFKA_CLASSPATH"


_named = os.environ.get(VARIABLE, "")
CLASSPATH = classpath() if _named == "maven" else _named
MISSING = f"{VARIABLE} names no Kafka jars (a class path, or maven)"
