"""A checkpoint's files: that they are there, and what its JSON files say."""

import json
from pathlib import Path
from typing import Any

from incremental.errors import UserError

READ = (".json", ".txt", ".safetensors", ".model")  # configurations, vocabularies, weights
POINTER = b"version https://git-lfs"
LONGEST = 1024  # bytes of a link's text
MODULES = "modules.json"


def files(folder: Path) -> list[Path]:
    """The files that say what the checkpoint in `folder` is: its own, and those of the modules that it names.

    Raises UserError where one is a link to nothing, or the pointer that Git LFS leaves in a file's place.
    """
    own = there(folder)
    if (folder / MODULES).is_file():
        own += [file for module in modules(folder) if module["path"] for file in there(folder / module["path"])]
    return own


def there(folder: Path) -> list[Path]:
    """The files of one folder that a checkpoint is read from, each with its content."""
    found = sorted(path for path in folder.iterdir() if path.suffix in READ) if folder.is_dir() else []
    for path in found:
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{path}: a link to {path.readlink()}, which is not there; copy the checkpoint again with what its "
                "links mean: cp -rL, rsync -L"
            )
        if not path.is_file():
            continue
        with path.open("rb") as opened:
            begins = opened.read(LONGEST + 1)
        if begins.startswith(POINTER):
            raise UserError(f"{path}: a Git LFS pointer, not the file itself; fetch it: git lfs pull, or hf download")
        if begins.startswith((b"../", b"/")) and len(begins) <= LONGEST and b"\n" not in begins.rstrip():
            raise UserError(
                f"{path}: the text of a link ({begins.decode(errors='replace').strip()}), not the file itself; copy "
                "the checkpoint again with what its links mean: cp -rL, rsync -L"
            )
    return [path for path in found if path.is_file()]


def modules(folder: Path) -> list[dict[str, Any]]:
    """What `folder`'s modules.json lists, in its order: each with its "type" and its "path" under the folder."""
    path = folder / MODULES
    listed = said(path, list)
    for each in listed:
        if not isinstance(each, dict) or not isinstance(each.get("type"), str) or not isinstance(each.get("path"), str):
            raise UserError(f"{path}: expected a list of modules with type and path; copy the checkpoint again")
    return listed


def said(path: Path, kind: type) -> Any:
    """What a JSON file says, of this kind; a UserError where it is not there or says another kind."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy the checkpoint again, with its subfolders") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy the checkpoint again") from None
    if not isinstance(found, kind):
        expected = "a list" if kind is list else "an object"
        raise UserError(f"{path}: {type(found).__name__}, expected {expected}; copy the checkpoint again")
    return found
