"""One run over several devices: its batches are split over a mesh and, where one device cannot hold them, its tables by
rows.

Sharding is data, not code: rules give every leaf of a state a `PartitionSpec` by its path, `split` says which rows may
be spread, and XLA's partitioner adds the communication. Models and strategies see the global batch: no axis name and no
`pmean` is in them.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from incremental.core.program import Program
from incremental.core.spec import Sizes
from incremental.core.types import PyTree
from incremental.domains import Count, Whole, checked
from incremental.errors import UserError

BATCH, ROWS = "batch", "rows"  # the mesh's axes
MOST = 128  # table capacities are multiples of it (`run.feed.Capacities`)

Build = Callable[[Sizes], Program]
Rules = tuple[tuple[str, P], ...]  # (regular expression that is searched in a leaf's path, where the leaf lies)

Tables = Literal["grow", "whole"]


class Devices(NamedTuple):
    """The devices of one run, batch x rows of them, and what they hold."""

    batch: int = 1
    """devices that share a batch"""
    rows: int = 1
    """devices that share the rows of a table"""
    distributed: bool = False
    """several processes, each with devices of its own, execute the run together"""
    coordinator: str | None = None
    """host:port of process 0; this and the next two are None where the environment says them"""
    processes: int | None = None
    process: int | None = None
    tables: Tables = "grow"
    """made for the ids that have arrived and copied into larger ones, or made once for all ids of the stream"""


@checked
def devices(
    *,
    batch: Count = 1,
    rows: Count = 1,
    distributed: bool = False,
    coordinator: str | None = None,
    processes: Count | None = None,
    process: Whole | None = None,
    tables: Tables = "grow",
) -> Devices:
    """`Devices`, checked."""
    for name, number in (("batch", batch), ("rows", rows)):
        if number not in [1 << i for i in range(MOST.bit_length())]:
            raise UserError(f"devices.{name}={number}: expected a power of two up to {MOST}, so that it divides tables")
    if not distributed and (coordinator, processes, process) != (None, None, None):
        raise UserError(
            "devices.coordinator, devices.processes and devices.process belong to devices.distributed=true; set it, or "
            "leave them out"
        )
    return Devices(batch, rows, distributed, coordinator, processes, process, tables)


def join(wanted: Devices) -> None:
    """Makes this process one of those that execute the run together, before anything else touches a device."""
    if not wanted.distributed or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(wanted.coordinator, wanted.processes, wanted.process)
    except (ValueError, RuntimeError) as error:
        said = str(error).splitlines()[0]
        raise UserError(
            f"devices.distributed=true: the processes did not come together ({said}); give devices.coordinator="
            "HOST:PORT, devices.processes and each process its devices.process, or start them with SLURM or Open MPI"
        ) from None


def first_process() -> bool:
    """Whether this process writes the run's directory: the only one, or number 0 of several."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def agreed(value: bool) -> bool:
    """Process 0's value, in every process."""
    if not jax.distributed.is_initialized():
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def mesh_of(wanted: Devices) -> Mesh:
    """The mesh [batch, rows]. Its axes are Auto: JAX's default, Explicit, would ask models and strategies for names."""
    number, there = wanted.batch * wanted.rows, jax.device_count()
    if number > there or (wanted.distributed and number != there):
        raise UserError(
            f"devices.batch={wanted.batch} x devices.rows={wanted.rows} asks for {number} devices, there are {there}; "
            + ("all of them must take part" if wanted.distributed else "lower one of the two")
        )
    return jax.make_mesh((wanted.batch, wanted.rows), (BATCH, ROWS), axis_types=(AxisType.Auto, AxisType.Auto))


def rules_of(tables: Iterable[str]) -> Rules:
    """Tables by rows, and with them the moments, Fishers, anchors and teachers that mirror them, for they lie at the
    same path of another tree. Whatever no rule names lies on every device."""
    return tuple((rf"(^|/){re.escape(path)}$", P(ROWS)) for path in tables)


class Layout(NamedTuple):
    """A mesh, and what lies where on it."""

    mesh: Mesh
    rules: Rules

    def shardings(self, tree: PyTree) -> PyTree:
        """The sharding of each leaf: that of the first rule found in its path, else all of it on every device."""

        def of(path: Any, leaf: Any) -> NamedSharding:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            spec = next((spec for pattern, spec in self.rules if re.search(pattern, name)), P())
            # What has a table's path but not its rows, as a projection or a count, is whole.
            even = leaf.ndim >= len(spec) and not (spec and leaf.shape[0] % self.mesh.shape[ROWS])
            return NamedSharding(self.mesh, spec if even else P())

        return jax.tree.map_with_path(of, tree)


def split(rows: PyTree) -> PyTree:
    """The same rows, their leading axis spread over the devices that share a batch; on one device nothing happens.

    Each device has all of them first: the memories and draws that they come from stay whole, or each would be split as
    well and gathered again.
    """
    if BATCH not in jax.sharding.get_abstract_mesh().axis_names:
        return rows
    return jax.lax.with_sharding_constraint(jax.lax.with_sharding_constraint(rows, P()), P(BATCH))


def sharded(program: Program, layout: Layout) -> Program:
    """The program over the layout's mesh: what its functions return lies as the layout says."""

    def on_mesh(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            with jax.sharding.use_abstract_mesh(layout.mesh.abstract_mesh):
                result = function(*args)
            return jax.lax.with_sharding_constraint(result, layout.shardings(result))

        return called

    names = ("init", "restart", "begin", "base_epoch", "run_epoch", "validate", "end", "rank", "rank_lists", "scores")
    functions: Any = {name: on_mesh(each) for name in names if (each := getattr(program, name)) is not None}
    return program._replace(**functions, shardings=layout.shardings)


def over(build: Build, wanted: Devices, tables: tuple[str, ...]) -> Build:
    """The build of the same programs over these devices; `tables` are their paths."""
    if wanted.batch * wanted.rows == 1 and not wanted.distributed:
        return build
    layout = Layout(mesh_of(wanted), rules_of(tables))
    return lambda sizes: sharded(build(sizes), layout)


def shapes(program: Program, tree: PyTree) -> PyTree:
    """A tree of the program's, such as its state, in ShapeDtypeStructs that say where each leaf lies."""
    alone = SingleDeviceSharding(jax.local_devices()[0])
    places = jax.tree.map(lambda _: alone, tree) if program.shardings is None else program.shardings(tree)
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, places)


def put(tree: PyTree, program: Program) -> PyTree:
    """Host arrays on the program's device or devices."""
    return jax.device_put(tree, None if program.shardings is None else program.shardings(tree))
