"""The published files of a study: where they are to be had, and whether a folder holds them."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from incremental.errors import UserError


class Published(NamedTuple):
    """A data set as its publishers give it."""

    name: str
    address: str
    files: Mapping[str, int]
    """bytes of each, unpacked"""


SIZES = [816386, 442921, 366771, 390207, 364359, 696295, 628557, 689324, 837434, 1006616, 1013096, 612030, 770612]
SIZES += [856802, 880980, 698398, 942296]
DIGINETICA = Published(
    "DIGINETICA in ADER's periods",
    "https://github.com/DoubleMuL/ADER",
    {f"period_{number}.txt": size for number, size in enumerate(SIZES)},
)
MOVIETWEETINGS = Published(
    "MovieTweetings, the snapshot of 100,000 ratings",
    "https://github.com/sidooms/MovieTweetings",
    {"ratings.dat": 2_945_101, "movies.dat": 542_192},
)
MNIST = Published(
    "MNIST",
    "http://yann.lecun.com/exdb/mnist (or its mirror https://ossci-datasets.s3.amazonaws.com/mnist)",
    {
        "train-images-idx3-ubyte": 47_040_016,
        "train-labels-idx1-ubyte": 60_008,
        "t10k-images-idx3-ubyte": 7_840_016,
        "t10k-labels-idx1-ubyte": 10_008,
    },
)
RSC15 = Published(
    "session-rec's sample of RecSys Challenge 2015 in this project's layout (experiments/session_rec/README.md)",
    "https://github.com/rn5l/session-rec (data/rsc15/prepared and data/rsc15/recommendations)",
    {"train.csv": 2_083_584, "test.csv": 402_236, "lists.parquet": 460_337},
)


def wrong(folder: Path, wanted: Published) -> list[str]:
    """What the folder lacks of the published files, a line each: a missing file, or one of another size."""
    found = []
    for name, size in wanted.files.items():
        path, packed = folder / name, folder / f"{name}.gz"
        if path.is_file():
            bytes_there = path.stat().st_size
        elif packed.is_file():
            try:
                bytes_there = len(gzip.decompress(packed.read_bytes()))
            except (OSError, EOFError, ValueError) as error:
                found.append(f"{packed} cannot be unpacked ({error}); fetch it again")
                continue
        else:
            found.append(f"{path} is not there")
            continue
        if bytes_there != size:
            found.append(f"{path} has {bytes_there:,} bytes, and {size:,} as published; fetch it again")
    return found


def require(folder: Path, wanted: Published) -> None:
    """Refuses a folder without the published files, all that is wrong at once; says where they are to be had."""
    if not folder.is_dir():
        raise UserError(f"path={folder}: there is no such folder; {wanted.name} is to be had at {wanted.address}")
    if lines := wrong(folder, wanted):
        raise UserError("\n  ".join([f"path={folder}: not {wanted.name}, which is at {wanted.address}", *lines]))
