"""What stands for a path in a run's identity: what lies there, and not where it lies."""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from incremental.data.sources.files import PACKED
from incremental.encoders.files import modules
from incremental.errors import UserError

BLOCK = 1 << 22  # bytes read at once


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the contents in place of local paths: what `path`, a key that ends in `_path`, and `base` name.

    A file stands for itself and for those beside it of the same name (`a.inter`, `a.item`), a folder for the files in
    it and in folders such as `year=2024` or, of a checkpoint, `1_Pooling`, without other folders and what is hidden,
    a pattern (`part-*.csv`) for what it matches in the same way, a base run for its identity. A relative `..._path` is
    looked for beside `path`. What there is not, such as a checkpoint by its name in a hub's cache, is left as it is.
    `cache` says where numbers are kept, and not which.
    """
    found = within(config)
    if config.get("base"):
        found["base"] = of_run(Path(str(config["base"]))) or config["base"]
    return found


def within(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node and those below it."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found[key] = within(value)
        elif is_place(key, value):
            home = Path(str(node["path"])).expanduser().parent if "path" in node and key != "path" else Path()
            found[key] = of(home / Path(value).expanduser()) or value
        elif key != "cache" or "_target_" not in node:
            found[key] = value
    return found


def without_data(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node, and those below it, without its local paths and without what lies there."""
    return {
        key: without_data(value) if isinstance(value, Mapping) else value
        for key, value in node.items()
        if not is_place(key, value) and (key != "cache" or "_target_" not in node)
    }


def at_places(node: Mapping[str, Any]) -> list[str]:
    """What a node and those below it have as local paths."""
    found: list[str] = []
    for key, value in sorted(node.items()):
        if isinstance(value, Mapping):
            found += at_places(value)
        elif is_place(key, value):
            found.append(value)
    return found


def places(node: Mapping[str, Any]) -> list[str]:
    """The local paths in a node and those below it, absolute."""
    return [str(Path(value).expanduser().absolute()) for value in at_places(node)]


def is_place(key: str, value: Any) -> bool:
    """Whether a key's value is a local path."""
    return isinstance(value, str) and (key == "path" or key.endswith("_path"))


def of(path: Path) -> str | None:
    """A hash of the names and contents of what is at `path`; None where nothing is."""
    if path.is_file():
        files = {one.name.removeprefix(stem_of(path)): one for one in alike([path])}
    elif path.is_dir():
        files = inside(path)
    elif matched := [Path(one) for one in glob.glob(str(path), recursive=True)]:
        files = {str(one): one for one in alike([one for one in matched if one.is_file()])}
        for one in matched:
            files |= {f"{one}/{name}": each for name, each in inside(one).items()} if one.is_dir() else {}
        if not files:
            return None
        above = os.path.commonpath([Path(name).parent for name in files])
        files = {os.path.relpath(name, above): one for name, one in files.items()}
    else:
        return None
    known = [(name, one.stat().st_size, digest(one, one.stat().st_mtime_ns)) for name, one in sorted(files.items())]
    return f"content {hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"


def alike(files: Collection[Path]) -> list[Path]:
    """The files and those beside them of the same names, such as RecBole's titles."""
    named = {(file.parent, stem_of(file)) for file in files}
    beside = (one for folder in {file.parent for file in files} for one in folder.iterdir())
    return [one for one in beside if (one.parent, stem_of(one)) in named and one.is_file()]


def stem_of(file: Path) -> str:
    """The name that a file has in common with those beside it, compressed or not: a of a.inter and of a.item.gz."""
    packed = next((end for end in PACKED if end and file.name.endswith(end)), "")
    return Path(file.name.removesuffix(packed)).stem


def inside(folder: Path) -> dict[str, Path]:
    """The files of a folder, and of those folders in it that are parts of a table (`year=2024`), or of a checkpoint as
    its modules.json says (`1_Pooling`), by name."""
    files: dict[str, Path] = {}
    named: set[str] = set()
    with contextlib.suppress(UserError):  # a file of this name that is none
        named = {each["path"] for each in modules(folder)}
    for one in folder.iterdir():
        if one.is_file() and not one.name.startswith("."):
            files[one.name] = one
        elif one.is_dir() and ("=" in one.name or one.name in named):
            files |= {f"{one.name}/{name}": each for name, each in inside(one).items()}
    return files


def has_more(place: str) -> bool:
    """Whether a reader may find files at a place that do not count, in folders below that are no parts of a table."""
    path = Path(place).expanduser()
    folders = [path] if path.is_dir() else [Path(one) for one in glob.glob(str(path), recursive=True)]
    below = [
        one
        for folder in folders
        if folder.is_dir()
        for one in folder.iterdir()
        if one.is_dir() and not one.name.startswith(".")
    ]
    return any("=" not in one.name or has_more(str(one)) for one in below)


@lru_cache(maxsize=4096)
def digest(file: Path, changed: int) -> str:
    """A hash of the file's bytes; `changed` is its time, for a file that was written again."""
    del changed
    made = hashlib.blake2b(digest_size=16)
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            made.update(block)
    return made.hexdigest()


def of_run(directory: Path) -> str | None:
    """The identity that a finished run has written."""
    try:
        return f"run {json.loads((directory / 'summary.json').read_text(encoding='utf-8'))['config']}"
    except (OSError, ValueError, KeyError):
        return None
