"""What a run's summary says that its updates cost, and its name for a tracker."""

from pathlib import Path

import pytest

from incremental.app.rundir import RunDirectory
from incremental.run.checkpoint import from_json, to_json
from incremental.run.feed import BYTES_AN_INTERACTION
from incremental.run.policy import update
from incremental.run.progress import Cost, Progress, Result, total_cost
from tests import lab


def of(costs: list[Cost]) -> dict[str, float]:
    return total_cost(Result(None, None, (), tuple(costs)))


def test_means_are_over_the_updates_that_there_were() -> None:
    base, none = Cost(0, 9.0, 4.0, 3.5, 13.0, 900, 3, 50, 7), [Cost(t, 0.0, 0.0, 0.2, 1.0, 0, 0, 0, 0) for t in (1, 3)]
    told = of([base, none[0], Cost(2, 3.0, 1.0, 0.55, 4.0, 200, 2, 40, 96), none[1]])
    assert told == {
        "updates": 1,
        "seconds_per_update": 3.0,
        "waited_per_update": pytest.approx(0.55 + 2 * 0.2),  # the tests of the others are on the update's way too
        "wall_per_update": 6.0,
        "compile_seconds": 5.0,
        "examples": 200,
        "parameters_written": 40,
        "memory_bytes": 96,
        "base_seconds": 9.0,
        "base_examples": 900,
    }
    never = of([base, *none])
    assert (never["updates"], never["seconds_per_update"], never["parameters_written"]) == (0, 0.0, 0.0)
    assert never["memory_bytes"] == 7  # the base part's strategies
    assert (never["waited_per_update"], never["wall_per_update"]) == (pytest.approx(0.2), 1.0)  # of an increment


def test_a_run_that_is_resumed_alone_says_how_many_shared_its_seconds_before(tmp_path: Path) -> None:
    costs = [Cost(t, 1.0, 0.0, 0.0, 1.0, 10, 1, 5, 0, lanes) for t, lanes in enumerate((8, 8, 1))]
    assert from_json(to_json(Progress(costs=tuple(costs)))).costs == tuple(costs)
    directory = RunDirectory(tmp_path, "sasrec", {"seed": 0, "devices": {}})
    assert directory.finish("sasrec", "finetune", Result(None, None, (), tuple(costs)))["lanes"] == 8


@pytest.mark.usefixtures("shared_programs")
def test_the_past_that_a_seldom_update_reads_is_memory() -> None:
    stream = lab.stream()
    every_second = update(window="all", every=2)  # so none at increment 3, the last
    result = lab.run(lab.baseline_build("popularity"), stream, every_second)
    assert [cost.epochs for cost in result.costs] == [1, 0, 1, 0]
    assert total_cost(result)["memory_bytes"] == BYTES_AN_INTERACTION * len(stream.training_events(range(2)))


def test_a_run_keeps_its_name_for_a_tracker_and_one_that_is_made_anew_has_another(tmp_path: Path) -> None:
    """A tracker that knows the name already would leave out the steps that it has."""

    config = {"seed": 0, "devices": {}, "label": "x" * 200}

    def made() -> str:
        directory = RunDirectory(tmp_path, "finetune", config)
        directory.open()
        found = directory.run_id()
        directory.close()
        assert not directory.path.exists()  # nothing worth keeping
        return found

    names = made(), made()
    assert names[0] != names[1]
    directory = RunDirectory(tmp_path, "finetune", config)
    directory.open()
    assert directory.run_id() == RunDirectory(tmp_path, "finetune", config).run_id()
    directory.close()
