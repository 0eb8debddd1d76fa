"""Metrics that cost the hot path next to nothing: declared once, plain integers, read when asked.

``declaration`` says what there is, ``histogram`` counts, ``exposition`` writes Prometheus' formats.
"""

from pegel.metrics.declaration import Catalogue, Column, Metric, Point, Reading
from pegel.metrics.histogram import Histogram

# ``exposition`` and ``http`` are imported where they are used: they load other libraries.
__all__ = ["Catalogue", "Column", "Histogram", "Metric", "Point", "Reading"]
