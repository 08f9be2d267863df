"""What stands for a path in a run's identity: what lies there, and not where it lies."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

BLOCK = 1 << 22  # bytes read at once


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the contents in place of local paths: what `path`, a key that ends in `_path`, and `base` name.

    A file stands for itself and for those beside it of the same name (`a.inter`, `a.item`), a folder for the files in
    it, without folders below it and what is hidden, a base run for its identity. A relative `..._path` is looked for
    beside `path`. What there is not, such as a checkpoint by its name in a hub's cache, is left as it is. `cache` says
    where numbers are kept, and not which.
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
        elif isinstance(value, str) and (key == "path" or key.endswith("_path")):
            home = Path(str(node["path"])).expanduser().parent if "path" in node and key != "path" else Path()
            found[key] = of(home / Path(value).expanduser()) or value
        elif key != "cache" or "_target_" not in node:
            found[key] = value
    return found


def of(path: Path) -> str | None:
    """A hash of the names and contents of what is at `path`; None where nothing is."""
    if path.is_file():
        files = {one.suffix: one for one in path.parent.iterdir() if one.stem == path.stem and one.is_file()}
    elif path.is_dir():
        files = {one.name: one for one in path.iterdir() if one.is_file() and not one.name.startswith(".")}
    else:
        return None
    known = [(name, one.stat().st_size, digest(one, one.stat().st_mtime_ns)) for name, one in sorted(files.items())]
    return f"content {hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"


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
