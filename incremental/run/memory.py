"""How many lanes fit into the memory that is free."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from incremental.run.feed import Feed
from incremental.run.lanes import Programs
from incremental.run.policy import Update

MARGIN = 0.9  # of the memory that is free: what the estimate may come to


def available(device: jax.Device) -> int:
    """Bytes that are free for this process: the device's, or the host's where the device is its CPU."""
    told = device.memory_stats()
    if told and "bytes_limit" in told:
        return int(told["bytes_limit"] - told["bytes_in_use"])
    return of_host(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))


def of_host(info: Path, group: Path) -> int:
    """Bytes that are free on the host, and within the limit of the process's control group, as containers have one."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    if info.exists():  # pages that only cache files are free too
        free = [
            1024 * int(line.split()[1])
            for line in info.read_text(encoding="utf-8").splitlines()
            if "MemAvailable" in line
        ]
    limit, used = group / "memory.max", group / "memory.current"
    if limit.exists() and limit.read_text(encoding="utf-8").strip().isdigit():
        stat = (line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        cached = sum(int(number) for name, number in stat if name in ("active_file", "inactive_file"))
        free.append(int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")) + cached)
    return max(min(free), 1)


def splits(programs: Programs, feed: Feed, policy: Update, numbers: Sequence[Mapping[str, float]]) -> int:
    """Into how many parts the lanes must be split to fit into memory, as the first update's compiled programs say.

    They are compiled for shapes: nothing is computed yet. What cannot run as a lane at all fails here.
    """
    total = programs.total(len(numbers))
    inputs = programs.at(feed.sizes(0)).program.inputs
    sizes, keys = feed.sizes(0, inputs), jnp.stack([jax.random.key(0)] * total)
    functions, place = programs.at(sizes), programs.everywhere
    given = {key: np.zeros(total, np.float32) for key in numbers[0]}
    data, validation, seen = feed.update(functions.program, 0, policy.plan(0, [], {}, 0), place)
    state = jax.eval_shape(functions.init.jitted, given, keys)
    on, epoch = np.zeros(total, bool), np.int32(0)
    compiled = [
        functions.begin.program(given, on, state, data),
        functions.base_epoch.program(given, on, state, epoch, data),
        functions.validate.program(given, on, state, validation, seen),
        functions.end.program(given, on, state, data),
    ]
    first = policy._replace(drop=None, budget=None).plan(1, [0], {}, 0)
    if first.increments and functions.base_epoch is not functions.run_epoch:  # what the strategies take, and refuse
        rows = feed.update(functions.program, 1, first, place).data
        compiled.append(functions.run_epoch.program(given, on, state, epoch, rows))
    told = [program.memory_analysis() for program in compiled]
    needed = max(
        each.argument_size_in_bytes + each.output_size_in_bytes + each.temp_size_in_bytes - each.alias_size_in_bytes
        for each in told
        if each is not None
    )
    if programs.mesh.devices.flat[0].platform == "cpu":  # all of them have one memory
        needed *= programs.mesh.size
    # The state grows in proportion to its tables.
    last = feed.sizes(len(feed.stream) - 1, inputs)
    needed *= max(last[kind] / sizes[kind] for kind in sizes)
    return min(math.ceil(needed / (MARGIN * available(programs.mesh.devices.flat[0]))), len(numbers))
