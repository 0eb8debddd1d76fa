"""``--client-set``: librdkafka runs with the settings that the user gave."""

from __future__ import annotations

from typing import cast

import pytest

from pegel.errors import PegelError
from pegel_bench.load import librdkafka
from pegel_bench.load.consuming import Meter, _consume_librdkafka
from pegel_bench.load.control import Control
from pegel_bench.load.spec import LoadSpec

confluent_kafka = pytest.importorskip("confluent_kafka")


def test_the_users_settings_win_over_those_of_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[dict[str, object]] = []

    def make(settings: dict[str, object]) -> None:
        taken.append(settings)
        raise PegelError("made")

    monkeypatch.setattr(confluent_kafka, "Producer", make)
    monkeypatch.setattr(confluent_kafka, "Consumer", make)
    spec = LoadSpec(
        bootstrap="127.0.0.1:1", topic="t", driver="librdkafka",
        client_settings={"linger.ms": "7", "max.partition.fetch.bytes": "10"},
    )  # fmt: skip
    with pytest.raises(PegelError, match="made"):
        librdkafka.run(spec, cast("Control", None))
    with pytest.raises(PegelError, match="made"):
        _consume_librdkafka(spec, cast("Meter", None))
    produced, consumed = taken
    assert produced["linger.ms"] == "7"
    assert consumed["max.partition.fetch.bytes"] == "10"
    assert produced["bootstrap.servers"] == consumed["bootstrap.servers"] == "127.0.0.1:1"
