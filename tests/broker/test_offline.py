"""The report of failed replicas: repeated until the metadata say what this broker says."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker import offline
from pegel_broker.offline import OfflineReport
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata import records as r
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerUnavailableError
from tests.support.replicas import run, turns, until

FAILED = (UUID(int=9), 4)
Answer = m.UpdateOfflineReplicasResponse | Exception


class Controllers:
    """Answers with what the test gives, then with yes."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.reports: list[m.UpdateOfflineReplicasRequest] = []

    async def call(self, method: str, request: Wire, timeout: float) -> Wire:
        assert isinstance(request, m.UpdateOfflineReplicasRequest)
        await asyncio.sleep(0)
        self.reports.append(request)
        answer = self.answers.pop(0) if self.answers else m.UpdateOfflineReplicasResponse()
        if isinstance(answer, Exception):
            raise answer
        return answer


def image(*failed: tuple[UUID, int], epoch: int = 7) -> MetadataImage:
    registered = r.BrokerRegisteredRecord(1, epoch, UUID(int=epoch), "h", 1, None, "")
    return MetadataImage().apply([registered, r.BrokerOfflineDirsRecord(1, epoch, (), failed)], 1)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "RETRY_INTERVAL", 0.0)


def test_a_report_is_repeated_until_a_controller_takes_it() -> None:
    async def main() -> None:
        controllers = Controllers(
            ControllerUnavailableError("gone"),
            m.UpdateOfflineReplicasResponse(ErrorCode.STALE_BROKER_EPOCH),
        )
        report = OfflineReport(1, controllers, lambda: 7, lambda: {FAILED: "torn"})  # type: ignore[arg-type]
        task = asyncio.create_task(report.run())
        report.wake()
        await until(lambda: len(controllers.reports) == 3)
        assert controllers.reports[-1].partitions == (FAILED,)
        assert controllers.reports[-1].reasons == ("torn",)
        await turns(100)
        assert len(controllers.reports) == 3, "it was taken"
        task.cancel()

    run(main)


def test_what_the_metadata_do_not_know_is_reported_again() -> None:
    """A new registration made the controller forget it, or the report was undone."""

    async def main() -> None:
        controllers, failed = Controllers(), {FAILED: "torn"}
        report = OfflineReport(1, controllers, lambda: 8, lambda: failed)  # type: ignore[arg-type]
        task = asyncio.create_task(report.run())
        report.on_metadata(MetadataImage())  # not registered: nobody to report to
        report.on_metadata(image(FAILED))
        await turns(100)
        assert controllers.reports == []
        report.on_metadata(image(epoch=8))
        await until(lambda: len(controllers.reports) == 1)
        assert controllers.reports[0].broker_epoch == 8
        failed.clear()  # the partition is not here any more
        report.on_metadata(image(FAILED, epoch=8))
        await until(lambda: len(controllers.reports) == 2)
        assert controllers.reports[1].partitions == ()
        task.cancel()

    run(main)


def test_it_is_pending_until_the_metadata_say_the_same() -> None:
    async def main() -> None:
        failed: dict[tuple[UUID, int], str] = {}
        report = OfflineReport(1, Controllers(), lambda: 7, lambda: failed)  # type: ignore[arg-type]
        assert not report.pending()
        failed[FAILED] = "torn"
        assert report.pending()
        report.on_metadata(image())
        assert report.pending()
        report.on_metadata(image(FAILED))
        assert not report.pending()

    run(main)
