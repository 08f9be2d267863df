"""Trains AR, SR and VSKNN on session-rec's sample and compares them with the authors' own lists, list by list."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import files, running
from experiments.session_rec import lists
from incremental.app.options import NEEDED, Option, options
from incremental.serve.model import BATCH, Trained, load
from incremental.shell import reported

IN_TIME = ["data.source.time=timestamp", "data.source.time_unit=ms"]
METHODS = {  # the settings of the lists; rules' ties are broken by the order of the lines, sessions' by their last time
    "AR": ["model=association_rules", "model.rules=20"],
    "SR": ["model=sequential_rules", "model.steps=20", "model.weighting=quadratic", "model.rules=20"],
    "VSKNN": ["model=vsknn", "model.neighbours=500", "model.sample=5000", "model.idf=5.0", *IN_TIME],
}
ALLOWED = {"AR": 1e-6, "SR": 1e-6, "VSKNN": 0.03}
"""largest difference of a score; VSKNN's neighbours of equal similarity at the 500th place are in no order"""
EQUAL = {"AR": 1e-6, "SR": 1e-6, "VSKNN": 1e-5}
"""rounding of float32; VSKNN's scores are sums over 500 neighbours"""
TENTHS = ["data/cut=fixed", "data.cut.base=70278", "data.cut.each=1357", *IN_TIME]
"""the test day in ten parts, in the order of time"""


def trained(folder: Path, runs: Path, row: str, own: Sequence[str]) -> Path:
    """The directory of a finished run with these overrides."""
    given = ["protocol=session_rec", "data=rsc15", f"data.source.path={folder}", "tracking=disabled"]
    job = running.job(row, 0, [*given, *own, f"row={row}", f"runs={runs}"])
    running.run([job])
    return job.directory


def scores(model: Trained, prefixes: Sequence[Sequence[str]]) -> list[Mapping[str, float]]:
    """Of each prefix the scores above 0, by item; it is a new session's."""
    numbers = {item: number for number, item in enumerate(model.items) if number}
    length = model.stream.history
    ask, found = jax.jit(model.program.scores), list[Mapping[str, float]]()
    for start in range(0, len(prefixes), BATCH):
        history = np.zeros((BATCH, length), np.int32)
        some = prefixes[start : start + BATCH]
        for row, prefix in zip(history, some, strict=False):
            row[length - len(prefix) :] = [numbers[item] for item in prefix]
        inputs: dict[str, Any] = {"history": history, "user": np.zeros(BATCH, np.int32)}
        values = np.asarray(ask(model.state, {name: inputs[name] for name in model.program.inputs}))
        for own in values[: len(some)]:
            found.append({model.items[item]: float(own[item]) for item in np.flatnonzero(own > 0)})
    return found


def compare(folder: Path, runs: Path, rows: Sequence[str], *, in_time: bool = False) -> str:
    """Published against measured: each method's lists, then the metrics; `in_time`: all are trained in time's order."""
    lines = [
        "| method | lists | equal in all 50 scores | largest difference | allowed | met |",
        "|---|---|---|---|---|---|",
    ]
    head = f"| method | ties | scores | {' | '.join(lists.METRICS)} |"
    metrics = [head, "|---" * (3 + len(lists.METRICS)) + "|"]

    def said(method: str, rule: str, words: str, ranks: Sequence[float]) -> None:
        cells = []
        for name, value in lists.metrics(ranks).items():
            given = lists.published()[method, rule][name]
            difference = round(round(value, 4) - given, 4) + 0.0  # no -0
            cells.append(f"{given:.4f}, {value:.4f}, {difference:+.4f}")
        metrics.append(f"| {method} | {words} | {' | '.join(cells)} |")

    for method in rows:
        asked = lists.read(folder, method)
        row = f"{method}-in-time" if in_time else method
        chosen = [*METHODS[method], *(IN_TIME if in_time else [])]
        own = scores(load(trained(folder, runs, row, chosen)), [one.prefix for one in asked])
        found, allowed = lists.compared(asked, own, EQUAL[method]), ALLOWED[method]
        met = "yes" if found.largest <= allowed else "**no**"
        lines.append(f"| {method} | {found.lists} | {found.equal} | {found.largest:.2g} | {allowed:g} | {met} |")
        listed = [dict(zip(one.items, one.scores.tolist(), strict=True)) for one in asked]
        said(method, "list", "as listed | the lists'", [lists.in_list(one) for one in asked])
        for words, given in (("the lists'", listed), ("measured", own)):
            ranks = [lists.half(scores, one.target) for one, scores in zip(asked, given, strict=True)]
            said(method, "half", f"half | {words}", ranks)
    orientation = lists.read(folder, "GRU4Rec")
    if orientation:
        said("GRU4Rec", "list", "as listed | the lists'", [lists.in_list(one) for one in orientation])
    return "\n".join([*lines, "", "Published, measured, difference:", "", *metrics])


def updated(folder: Path, runs: Path, rows: Sequence[str]) -> str:
    """What no paper has: the whole test day in ten parts, without updates and with one after each part."""
    lines = ["| method | update | recall@5 | recall@10 | recall@20 | mrr@20 |", "|---|---|---|---|---|---|"]
    for method in rows:
        for update in ("static", "finetune"):
            own = [*METHODS[method], *TENTHS, f"update={update}"]
            directory = trained(folder, runs, f"{method}-{update}", own)
            found = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["metrics"]
            values = [found[name]["prequential"] for name in ("recall@5", "recall@10", "recall@20", "mrr@20")]
            lines.append(f"| {method} | {update} | {' | '.join(f'{value:.4f}' for value in values)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    known = {
        "path": Option(NEEDED, "the folder with train.csv, test.csv and lists.parquet"),
        "runs": Option(Path("runs/session_rec"), "the folder of the runs"),
        "rows": Option([*METHODS], choices=[*METHODS]),
        "in_time": Option(False, "AR and SR too are trained in the order of time, not of the lines"),
        "updates": Option(False, "also the test day in ten parts, with updates and without"),
    }
    chosen, _ = options(sys.argv[1:], __doc__, known)
    folder = Path(chosen.path)
    files.require(folder, files.RSC15)
    print(compare(folder, chosen.runs, chosen.rows, in_time=chosen.in_time))
    if chosen.updates:
        print("\n" + updated(folder, chosen.runs, chosen.rows))


if __name__ == "__main__":
    with reported():
        main()
