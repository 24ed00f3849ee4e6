"""Kafka's small text files have no checksum: what is cut, or goes on, is no checkpoint."""

from __future__ import annotations

import pytest

from gateway.log.checkpoints import decode_epochs, decode_offsets, encode_epochs, encode_offsets


def test_offsets_and_epochs_are_read_as_they_were_written() -> None:
    offsets = {("t", 0): 2, ("t-1", 3): 77}
    assert decode_offsets(encode_offsets(offsets)) == offsets
    assert decode_offsets(encode_offsets({})) == {}
    assert decode_epochs(encode_epochs([(0, 0), (4, 12)])) == [(0, 0), (4, 12)]


@pytest.mark.parametrize("ending", ["", "5", "\r", "\n\n", "\x0b", "\n7"], ids=repr)
def test_a_file_that_does_not_end_with_its_last_line_is_damaged(ending: str) -> None:
    """Offset 2 with a digit behind it would be another one, and hide what lies below."""
    for data in (encode_offsets({("t", 0): 2}), encode_epochs([(0, 2)])):
        with pytest.raises(ValueError, match="checkpoint"):
            (decode_offsets if b"t" in data else decode_epochs)(data[:-1] + ending.encode())
