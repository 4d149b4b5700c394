import os
from pathlib import Path

import numpy as np
import pytest

from training.errors import CheckpointError
from training.fit.views.activations import KEY_BYTES, ActivationStore

SHAPE = (3, 2)


def key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")


def filled(folder: Path, numbers: range) -> ActivationStore:
    store = ActivationStore(folder, SHAPE)
    with store.writing():
        for number in numbers:
            store.append([key(number)], np.full((1, *SHAPE), number, dtype=np.float16))
    return store


def test_records_come_back_in_the_order_asked_for_also_after_opening_again(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    store = ActivationStore(tmp_path, SHAPE)
    assert len(store) == 5
    assert store.read([key(4), key(0), key(4)])[:, 0, 0].tolist() == [4, 0, 4]
    with pytest.raises(KeyError):
        store.read([key(9)])


@pytest.mark.parametrize("lost", [1, 5, 11])
@pytest.mark.parametrize("file", ["records.f16", "keys.bin"])
def test_a_store_cut_at_any_byte_keeps_its_whole_records_and_goes_on(
    tmp_path: Path, file: str, lost: int
) -> None:
    filled(tmp_path, range(4))
    os.truncate(tmp_path / file, (tmp_path / file).stat().st_size - lost)
    store = ActivationStore(tmp_path, SHAPE)
    assert [number for number in range(4) if key(number) in store] == [0, 1, 2]
    with store.writing():
        store.append([key(7)], np.full((1, *SHAPE), 7, dtype=np.float16))
    again = ActivationStore(tmp_path, SHAPE)
    assert again.read([key(2), key(7)])[:, 0, 0].tolist() == [2, 7]


def test_two_writers_are_refused_and_a_reader_does_not_disturb_one(tmp_path: Path) -> None:
    store = filled(tmp_path, range(2))
    with store.writing():
        with (
            pytest.raises(CheckpointError, match="another run is writing"),
            ActivationStore(tmp_path, SHAPE).writing(),
        ):
            pass
        store.append([key(2)], np.full((1, *SHAPE), 2, dtype=np.float16))
    assert len(ActivationStore(tmp_path, SHAPE)) == 3


def test_records_of_another_shape_are_refused(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, SHAPE)
    with store.writing(), pytest.raises(ValueError, match=r"float16 \(n, \*\(3, 2\)\)"):
        store.append([key(0)], np.zeros((1, 2, 3), dtype=np.float16))
