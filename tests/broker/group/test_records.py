"""The records of ``__consumer_offsets``, as Apache Kafka 4.3 writes them."""

from __future__ import annotations

import uuid

import pytest

from pegel_broker.coordinator.effects import Record
from pegel_broker.coordinator.partitioning import java_string_hash, partition_for
from pegel_broker.group.records import (
    GroupMetadataValue,
    GroupRecord,
    MemberMetadata,
    OffsetCommitValue,
    OffsetRecord,
    RecordError,
    group_record,
    offset_record,
    read_record,
)

TOPIC_ID = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
VALUE = OffsetCommitValue(
    offset=258, leader_epoch=7, metadata="meta", commit_timestamp=0x0102030405060708,
    topic_id=TOPIC_ID,
)  # fmt: skip
GROUP_VALUE = GroupMetadataValue(
    protocol_type="consumer", generation=3, protocol="range", leader="m", current_state_timestamp=9,
    members=[
        MemberMetadata(
            member_id="m", group_instance_id=None, client_id="c", client_host="/h",
            rebalance_timeout=1, session_timeout=2, subscription=b"s", assignment=b"a",
        )
    ],
)  # fmt: skip


def test_an_offset_is_written_byte_for_byte_as_kafka_does() -> None:
    record = offset_record("g", "t", 1, VALUE)
    assert record.key == bytes.fromhex("0001 0001 67 0001 74 00000001".replace(" ", ""))
    assert record.value == bytes.fromhex(
        "0004" "0000000000000102" "00000007" "05" + b"meta".hex() + "0102030405060708"
        "01" "00" "10" + TOPIC_ID.hex
    )  # fmt: skip


def test_an_offset_with_a_time_of_its_own_is_written_in_version_1() -> None:
    value = OffsetCommitValue(offset=1, metadata="", commit_timestamp=2, expire_timestamp=3)
    record = offset_record("g", "t", 1, value)
    assert record.value == bytes.fromhex(
        "0001" "0000000000000001" "0000" "0000000000000002" "0000000000000003"
    )  # fmt: skip


def test_a_group_is_written_byte_for_byte_as_kafka_does() -> None:
    record = group_record("g", GROUP_VALUE)
    assert record.key == bytes.fromhex("0002000167")
    assert record.value == bytes.fromhex(
        "0003" "0008" + b"consumer".hex() + "00000003" "0005" + b"range".hex() + "0001" "6d"
        "0000000000000009" "00000001" "0001" "6d" "ffff" "0001" "63" "0002" "2f68"
        "00000001" "00000002" "00000001" "73" "00000001" "61"
    )  # fmt: skip


def test_records_are_read_as_they_were_written() -> None:
    found = read_record(offset_record("g", "t", 1, VALUE))
    assert isinstance(found, OffsetRecord)
    assert (found.key.group, found.key.topic, found.key.partition) == ("g", "t", 1)
    assert found.value == VALUE
    group = read_record(group_record("g", GROUP_VALUE))
    assert isinstance(group, GroupRecord)
    assert group.value == GROUP_VALUE
    gone = read_record(offset_record("g", "t", 1, None))
    assert isinstance(gone, OffsetRecord)
    assert gone.value is None


def test_records_of_older_brokers_are_read() -> None:
    key = offset_record("g", "t", 1, None).key
    value = bytes.fromhex("0000 0000000000000005 0001 6d 0000000000000006")
    found = read_record(Record(key, value))
    assert isinstance(found, OffsetRecord)
    assert found.value is not None
    assert (found.value.offset, found.value.leader_epoch, found.value.metadata) == (5, -1, "m")


def test_kinds_of_later_releases_are_passed_over() -> None:
    assert read_record(Record(b"\x00\x03\x00\x01g", b"\x00\x00")) is None


@pytest.mark.parametrize(
    "record",
    [
        Record(b"", b""),
        Record(b"\x00\x01\x00\x05g", None),
        Record(b"\x00\x02\x00\x01g", b"\x00\x03\x00"),
        Record(b"\x00\x02\x00\x01g", b"\x00\x63"),
        Record(b"\x00\x02\x00\x01g", b"\x00\x03" + b"\x00\x00" + b"\x00" * 8 + b"\x7f" * 20),
    ],
)
def test_damage_is_told(record: Record) -> None:
    with pytest.raises(RecordError):
        read_record(record)


def test_groups_belong_to_the_partitions_that_kafka_gives_them() -> None:
    # From java.lang.String.hashCode.
    assert java_string_hash("") == 0
    assert java_string_hash("hello") == 99162322
    assert java_string_hash("polygenelubricants") == -(2**31)
    assert java_string_hash("\U0001f30a") == 0xD83C * 31 + 0xDF0A
    assert partition_for("polygenelubricants", 50) == 0
    assert partition_for("hello", 50) == 22
    assert all(0 <= partition_for(f"group-{i}", 50) < 50 for i in range(1_000))
