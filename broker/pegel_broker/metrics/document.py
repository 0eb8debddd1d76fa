"""``docs/metrics.md``, from the declarations: ``python -m pegel_broker.metrics.document``."""

from __future__ import annotations

from pegel.exporter.declared import EXPORTER
from pegel.metrics.clients import CLIENTS
from pegel_broker.metrics.declared import BROKER, LABELS

_HEAD = """\
# Metrics

Written by `python -m pegel_broker.metrics.document` from the declarations; a test holds the two
together. `pegel server --list-metrics` prints the first part.

Every node serves these at `http://HOST:9644/metrics`, in Prometheus' text format or in OpenMetrics,
whichever is asked for. `cluster`, `job` and `instance` come from the scrape configuration.

## A node
"""


def document() -> str:
    """The page as Markdown."""
    lines = [_HEAD, BROKER.markdown(), "### Labels", ""]
    lines += ["No label holds what a client chose but the names of topics: no client ids, no",
              "addresses, no group with a partition.", "", "| label | values | at most |",
              "|---|---|---|"]  # fmt: skip
    lines += [f"| `{name}` | {text} | {bound:,} |" for name, (text, bound) in LABELS.items()]
    lines += ["", "## `pegel exporter`", "",
              "Topics and consumer groups of any Kafka-compatible cluster, at `:9308/metrics`.", "",
              EXPORTER.markdown()]  # fmt: skip
    lines += ["## Clients", "",
              "What producers and consumers of a process count: see `pegel.metrics.clients`.", "",
              CLIENTS.markdown()]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
