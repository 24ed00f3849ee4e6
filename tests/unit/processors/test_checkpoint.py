"""The checkpoint file: whole or refused."""

from __future__ import annotations

import pytest

from processors.checkpoint import (
    Checkpoint,
    CheckpointError,
    InputState,
    Writer,
    decode_checkpoint,
    encode_checkpoint,
)

WHOLE = Checkpoint(
    inputs={
        "readings/0": InputState(
            12,
            {"numbers": {"w@1": 3}, "nodes": {4: [1, 2]}, "cells": b"\x00" * 90},
            Writer((7, 2), {"aggregates/0": 9}),
        )
    },
    ends={"aggregates/0": 5},
)


def test_it_comes_back_as_it_was() -> None:
    assert decode_checkpoint(encode_checkpoint(WHOLE)) == WHOLE


def test_no_damaged_byte_and_no_cut_goes_unseen() -> None:
    data = encode_checkpoint(WHOLE)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(CheckpointError):
            decode_checkpoint(bytes(damaged))
        with pytest.raises(CheckpointError):
            decode_checkpoint(data[:place])


def test_another_format_is_named() -> None:
    data = bytearray(encode_checkpoint(WHOLE))
    data[5] = 99
    with pytest.raises(CheckpointError, match="its format is 99, not"):
        decode_checkpoint(bytes(data))
