"""MNIST from its idx files, as a stream of tasks: a task is an increment, its classes are the catalogue."""

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from incremental.core.spec import Input, Sizes, Spec
from incremental.core.types import Batch, Data
from incremental.errors import UserError

Scenario = Literal["domain", "class"]
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
SIZES: dict[Scenario, Sizes] = {
    "domain": Sizes(item=1 + 2, user=1),
    "class": Sizes(item=1 + 10, user=1),
}  # row 0 is padding
SPEC = Spec({"image": Input((28**2,), np.dtype(np.uint8), "grey")})  # whole numbers, of which no table has rows


class Digits(NamedTuple):
    """Images as bytes, so that a memory of thousands of them stays small, and the digits they show."""

    images: np.ndarray  # [N, 784] uint8
    digits: np.ndarray  # [N] uint8


class Tasks(NamedTuple):
    """What is learned, one after the other, and what is tested at the end."""

    train: list[Data]
    test: list[Data]


def idx(path: Path) -> np.ndarray:
    """The array of an idx file, gzipped or not: two zero bytes, the type (8 = bytes), rank, sizes, values."""
    packed = path.with_name(f"{path.name}.gz")
    if not (path.exists() or packed.exists()):
        raise UserError(f"{path}[.gz]: no such file; name the folder of MNIST's four idx files with path=FOLDER")
    raw = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    zero, kind, rank = struct.unpack(">HBB", raw[:4])
    if (zero, kind) != (0, 8):
        raise UserError(f"{path}: expected an idx file of bytes")
    shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def read(folder: Path, part: Literal["train", "t10k"]) -> Digits:
    """The training or the test images."""
    images = idx(folder / f"{part}-images-idx3-ubyte")
    return Digits(images.reshape(len(images), -1), idx(folder / f"{part}-labels-idx1-ubyte"))


def label(digits: np.ndarray, scenario: Scenario) -> np.ndarray:
    """[N] int32 from 1: the digit's place in its task, or the digit."""
    return 1 + digits.astype(np.int32) % (2 if scenario == "domain" else 10)


def rows(digits: Digits, chosen: Sequence[int], increment: int, scenario: Scenario, capacity: int) -> Data:
    """The images of the `chosen` digits on the device, padded to `capacity`."""
    place = np.flatnonzero(np.isin(digits.digits, chosen))
    n, behind = len(place), capacity - len(place)
    labels: Any = np.pad(label(digits.digits[place], scenario), (0, behind))
    images = np.pad(digits.images[place], ((0, behind), (0, 0)))
    whole: Any = (
        np.ones(capacity, np.float32),
        np.arange(capacity) < n,
        np.full(capacity, increment, np.int32),
        np.zeros(capacity, np.int32),
    )
    size: Any = np.int32(n)
    now: Any = np.int32(increment)
    nobody: Any = {"user": np.zeros(1, np.int32)}
    return jax.device_put(Data(Batch({"image": images}, labels, *whole), size, now, labels, nobody))


def tasks(train: Digits, test: Digits, scenario: Scenario, *, joint: bool = False) -> Tasks:
    """The five tasks of two digits each; `joint`: all at once, as one task."""

    def parts(digits: Digits, cut: Sequence[Sequence[int]]) -> list[Data]:
        capacity = max(int(np.isin(digits.digits, chosen).sum()) for chosen in cut)
        return [rows(digits, chosen, t, scenario, capacity) for t, chosen in enumerate(cut)]

    return Tasks(parts(train, [sum(TASKS, ())] if joint else TASKS), parts(test, TASKS))
