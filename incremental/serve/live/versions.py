"""What a learner publishes and a server serves: `versions/000017/` of its folder is its model after increment 17.

The file `current` names the newest one. It is replaced by a rename, as a version's folder appears by one: a reader
meets whole versions only.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from incremental.app.rundir import write_atomically
from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.types import PyTree, State
from incremental.errors import UserError
from incremental.run.alone import Kept
from incremental.run.executor import Snapshot

FORMAT = 1  # of a version; another one is refused
LEARNERS = "learners"  # the folder of their folders, in a live folder
CURRENT, VERSIONS, LEAVES, ABOUT = "current", "versions", "state.safetensors", "version.json"


class Version(NamedTuple):
    """A version in memory.

    Attributes:
        state: without what a recommendation does not read (moments, memories), which is 0
        sizes: capacities of its tables
        cut: the log's offset that its increment ends with
    """

    state: State
    sizes: Sizes
    cut: int


def publish(
    folder: Path,
    program: Program,
    snapshot: Snapshot,
    *,
    side: Mapping[str, Any] = {},
    cut: int,
    keep: int,
    never: Collection[int],
) -> int:
    """Writes the version of a snapshot, which an increment has ended with, and returns its number: the increment.

    `side` are the tables that the program reads beside its state. The last `keep` versions stay, and those of `never`,
    which others have named.
    """
    number, sizes = snapshot.progress.increment - 1, snapshot.sizes
    there = folder / VERSIONS / f"{number:06d}"
    new = there.with_name(f".{there.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    wanted = leaves_read(program, side)
    leaves = {name: np.asarray(leaf, order="C") for name, leaf in named(snapshot.state).items() if name in wanted}
    about = {"format": FORMAT, "increment": number, "cut": cut, "sizes": {"labels": sizes.labels, **sizes}}
    write_atomically(new / LEAVES, save(leaves))
    write_atomically(new / ABOUT, json.dumps(about, indent=1) + "\n")
    if there.exists():  # of a learner that has lost its checkpoint, and learnt this again
        shutil.rmtree(there)
    new.replace(there)
    write_atomically(folder / CURRENT, f"{number}\n")
    for old in numbers(folder)[:-keep]:
        if old not in never:
            shutil.rmtree(folder / VERSIONS / f"{old:06d}")
    return number


def newest(folder: Path) -> int | None:
    """The number of the newest version in a learner's folder; None: there is none yet."""
    try:
        return int((folder / CURRENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(
            f"{folder / CURRENT}: expected the number of a version; remove the file and start the learner again, which "
            "writes it anew"
        ) from None


def numbers(folder: Path) -> list[int]:
    """The numbers of the versions that there are, the oldest first."""
    there = folder / VERSIONS
    return sorted(int(name) for name in os.listdir(there) if name.isdecimal()) if there.is_dir() else []


def read(folder: Path, number: int, like: Callable[[Sizes], Kept]) -> Version:
    """A version, its leaves on the host; `like` says what the learner's program keeps at given sizes.

    A UserError where there is no such version, or it is not of that program.
    """
    there = folder / VERSIONS / f"{number:06d}"
    try:
        about = json.loads((there / ABOUT).read_text(encoding="utf-8"))
        leaves = load_file(there / LEAVES)
    except FileNotFoundError:
        kept = ", ".join(map(str, numbers(folder))) or "none"
        raise UserError(f"{there}: no such version; there is {kept} (live.keep_versions says how many)") from None
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{there}: the version cannot be read ({error}); choose another one") from None
    if about["format"] != FORMAT:
        raise UserError(
            f"{there}: it has the format of version {about['format']}, this code reads version {FORMAT}; use the code "
            "that wrote it"
        )
    sizes = Sizes(**about["sizes"])
    state = like(sizes).state
    known = named(state)
    for name, leaf in leaves.items():
        wanted = known.get(name)
        if wanted is None or (wanted.shape, wanted.dtype) != (leaf.shape, leaf.dtype):
            raise UserError(
                f"{there}: {name} is {leaf.dtype}{list(leaf.shape)}, and the configuration has "
                f"{'no such thing' if wanted is None else f'{wanted.dtype}{list(wanted.shape)}'}; it is of another "
                "configuration"
            )
    return Version(placed(state, leaves), sizes, int(about["cut"]))


# -- leaves ------------------------------------------------------------------------------------------------------------


def named(tree: PyTree) -> dict[str, Any]:
    """Leaf by its path."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def placed(like: State, leaves: dict[str, np.ndarray]) -> State:
    """The tree of these leaves; those that are not there are 0, and take no memory."""

    def of(path: Any, leaf: Any) -> Any:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return leaves.get(jax.tree_util.keystr(path), np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape))

    state: State = jax.tree_util.tree_map_with_path(of, like)
    return state


def leaves_read(program: Program, side: Mapping[str, Any] = {}) -> set[str]:
    """The paths of a state's leaves that a recommendation may read: what the traced functions mention, and which ids
    the model knows, by which histories are made."""
    state = jax.eval_shape(program.init, jax.random.key(0))
    paths = [*named(state)]
    inputs = {name: jax.ShapeDtypeStruct((1, *each.shape), each.dtype) for name, each in program.inputs.items()}

    def read(state: State, inputs: PyTree, side: Mapping[str, Any]) -> Any:
        own = program if program.at is None else program.at(side)
        represent = () if own.represent is None else own.represent(state, inputs)
        return own.scores(state, inputs), represent, own.tables(state)

    jaxpr = jax.make_jaxpr(read)(state, inputs, side).jaxpr
    used = {id(each) for equation in jaxpr.eqns for each in equation.invars} | {id(each) for each in jaxpr.outvars}
    mentioned = {path for path, each in zip(paths, jaxpr.invars, strict=False) if id(each) in used}
    return mentioned | {path for path in paths if path.startswith(".learner.catalogue")}
