import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from incremental.metrics.continual import Evaluation, summarise
from incremental.report import Run, pictures

NDCG = "ndcg@10"

Write = Callable[..., Path]


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's pictures are drawn and not written as SVG, for a test of what stands beside them."""
    monkeypatch.setattr(pictures, "data_uri", lambda _figure: "data:image/svg+xml;base64,")


@pytest.fixture
def write_run(tmp_path: Path) -> Write:
    """Write a run directory with a prequential curve of ndcg@10, and held-out rows where R is given."""

    def write(
        row: str,
        seed: int,
        curve: list[float],
        /,
        *,
        R: list[list[float]] | None = None,
        config: str = "",
        folder: str = "",
        epochs: str = "",
        **over: Any,
    ) -> Path:
        directory = tmp_path / "runs" / folder / f"sasrec-{row}-{seed}"
        directory.mkdir(parents=True)
        rows: list[Evaluation] = [(j, j + 1, NDCG, value, 10) for j, value in enumerate(curve)]
        rows += [(i, j, "heldout/ndcg@10", value, 5) for i, line in enumerate(R or []) for j, value in enumerate(line)]
        lines = [
            "trained_until,evaluated_on,metric,value,count",
            *(",".join(map(str, line)) for line in rows),
        ]
        (directory / "evaluations.csv").write_text("\n".join(lines) + "\n")
        (directory / "config.yaml").write_text(f"seed: {seed}\n{config}")
        if epochs:
            (directory / "epochs.csv").write_text(epochs)
        content = {
            "name": f"sasrec-{row}",
            "row": row,
            "seed": seed,
            "increments": len(curve),
            "status": "finished",
            "config": "0123abcd",
            "metrics": summarise(rows),
            "cost": {
                "seconds_per_update": 1.5,
                "compile_seconds": 4.0,
                "examples": 1200,
                "memory_bytes": 2048,
            },
        }
        (directory / "summary.json").write_text(json.dumps(content | over))
        return directory

    return write


@pytest.fixture
def study(write_run: Write, tmp_path: Path) -> Path:
    """Three strategies over three seeds; replay is better than finetune by 0.10, 0.11 and 0.12."""
    for seed in range(3):
        low = 0.20 + 0.02 * seed
        write_run("finetune", seed, [low, low - 0.04])
        high = low + 0.10 + 0.01 * seed
        write_run("replay", seed, [high, high - 0.04], R=[[0.5, 0.2, 0.1], [0.4, 0.6, 0.3], [0.3, 0.5, 0.7]])
        write_run("static", seed, [0.1, 0.06], cost={"seconds_per_update": 0.0})
    return tmp_path / "runs"


def of(row: str, model: str = "sasrec", *, weight: float | None = None, quality: float, cost: float = 1.0) -> list[Run]:
    """Three seeds of a row, each 0.01 above the one before, as of `model=... strategies.anchor.weight=...`."""
    anchor = {} if weight is None else {"anchor": {"_target_": f"incremental.strategies.{row}", "weight": weight}}
    config = {"model": {"_target_": f"incremental.models.{model}", "width": 32}, "strategies": anchor}
    return [
        Run(
            row,
            seed,
            # The third seed keeps the differences between rows from being equal.
            {NDCG: {"prequential": quality + 0.01 * seed + 0.01 * quality * (seed == 2)}},
            {"seconds_per_update": cost},
            name=f"{model}-{row}",
            increments=3,
            config=config,
        )
        for seed in range(3)
    ]


@pytest.fixture
def sweep() -> list[Run]:
    """Finetune and EWC at three weights in two models: gru4rec is better with a low weight, sasrec with a high one."""
    return [
        run
        for model, weights in {
            "sasrec": {0.1: 0.21, 1.0: 0.25, 10.0: 0.30},
            "gru4rec": {0.1: 0.30, 1.0: 0.2, 10.0: 0.05},
        }.items()
        for runs in [
            of("finetune", model, quality=0.2),
            *(of("ewc", model, weight=weight, quality=quality, cost=2.0) for weight, quality in weights.items()),
        ]
        for run in runs
    ]
