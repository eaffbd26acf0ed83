"""Which steps a W&B run has on this disk: what a killed W&B process wrote before it ended.

A .wandb file is a log as LevelDB writes it: blocks of 32 KiB, and records that are cut where a block ends."""

import struct
from collections.abc import Iterator
from pathlib import Path

HEAD, BLOCK = 7, 32768  # bytes before the first record, and of a block
WHOLE, LAST = 1, 4  # kinds of pieces with which a record is complete


def steps(run: Path, id: str) -> set[int]:
    """Of all launches of the run with this id below RUN/wandb."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    found = set()
    for path in sorted(run.glob(f"wandb/*run-*-*/run-{id}.wandb")):
        for each in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(each)
            if record.WhichOneof("record_type") == "history":
                found.add(int(record.history.step.num))
    return found


def records(data: bytes) -> Iterator[bytes]:
    """As far as they go."""
    piece, place = b"", HEAD
    while place + HEAD <= len(data):
        rest = BLOCK - place % BLOCK
        length, kind = struct.unpack("<HB", data[place + 4 : place + HEAD])
        if rest < HEAD or kind == 0:
            place += rest
            continue
        part = data[place + HEAD : place + HEAD + length]
        if len(part) < length:
            return
        piece += part
        place += HEAD + length
        if kind in (WHOLE, LAST):
            yield piece
            piece = b""
