"""Record batches: Kafka's format v2 (magic 2), encoded and decoded a column at a time."""

from pegel.record.batch import BatchHeader, check_batch, iter_batches, read_header
from pegel.record.compression import Codec, CorruptBatchError
from pegel.record.decode import Record, RecordColumns, decode_batch
from pegel.record.encode import encode_batch

__all__ = [
    "BatchHeader",
    "Codec",
    "CorruptBatchError",
    "Record",
    "RecordColumns",
    "check_batch",
    "decode_batch",
    "encode_batch",
    "iter_batches",
    "read_header",
]
