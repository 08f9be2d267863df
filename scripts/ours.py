"""This project's side of the contests (`contest.py`): a configuration, and its training outside the loop."""

import json
import time
from collections.abc import Mapping
from typing import Any

# Of SASRec's weights: here, and in `peers.sasrec`.
NAMES = {
    "item/embedding": "table",
    "position": "place",
    "layers_": "blocks.",
    "LayerNorm_0": "before",
    "LayerNorm_1": "between",
    "scale": "weight",
    "kernel": "weight",
    "/": ".",
}


class Ours:
    """One configuration of this project, at the capacities of increment `t`."""

    def __init__(self, t: int, *overrides: str) -> None:
        import hydra
        import jax

        from incremental.app.assemble import assemble
        from incremental.app.cli import config_folder, resolved
        from incremental.run.alone import Alone
        from incremental.run.feed import Feed

        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            self.config = resolved(hydra.compose("config", ["tracking=disabled", *overrides]))
        parts = assemble(self.config)
        self.stream = parts.stream
        self.feed, self.policy, way = Feed(parts.stream), parts.update, Alone(parts.build)
        self.functions = way.at(self.feed.sizes(t, way.inputs(self.feed.sizes(0)))).functions
        self.jax = jax
        self.afresh(0)

    def afresh(self, seed: int) -> None:
        self.state = self.functions.init(self.jax.random.key(seed))

    def start_as(self, weights: Mapping[str, Any]) -> None:
        """The weights of `peers.sasrec`, by its names, in place of the own start. The padding and the items that
        PyTorch has no row for keep theirs."""

        def of(path: Any, leaf: Any) -> Any:
            name = own = self.jax.tree_util.keystr(path, simple=True, separator="/")
            for ours, theirs in NAMES.items():
                name = name.replace(ours, theirs)
            values = weights[name].T if own.endswith("kernel") else weights[name]
            first = 1 if own == "item/embedding" else 0
            return leaf.at[first : first + len(values)].set(values)

        params = self.jax.tree_util.tree_map_with_path(of, self.state.learner.params)
        self.state = self.state._replace(learner=self.state.learner._replace(params=params))

    def data(self, t: int) -> tuple[Any, Any]:
        """What increment t's own update trains and validates on."""
        plan = self.policy.plan(t, [*range(t)], {}, 0)
        return self.feed.update(self.functions.program, t, plan, self.jax.device_put)[:2]

    def begin(self, data: Any) -> None:
        self.state = self.functions.begin(self.state, data)

    def epochs(self, data: Any, number: int = 1) -> tuple[float, int]:
        """Seconds and examples of so many epochs."""
        self.functions.run_epoch.program(self.state, data)
        self.jax.block_until_ready(self.state)
        start, examples = time.perf_counter(), 0
        for _ in range(number):
            self.state, info = self.functions.run_epoch(self.state, data)
            examples += int(info.examples)
        self.jax.block_until_ready(self.state)
        return time.perf_counter() - start, examples

    def update(self, data: Any, validation: Any) -> tuple[float, int]:
        """Seconds and examples of an update of one epoch, with what its strategies do before and after it."""
        start, compiled = time.perf_counter(), self.functions.spent.seconds
        self.begin(data)
        _, examples = self.epochs(data)
        self.state = self.functions.end(self.functions.validate(self.state, validation, None), data)
        self.jax.block_until_ready(self.state)
        return time.perf_counter() - start - (self.functions.spent.seconds - compiled), examples

    def test_examples(self, seen: Any) -> Any:
        """Of increment 1, for a model trained until the base part that knows the items `seen`."""
        known = {"item": seen} if "history" in self.functions.program.inputs else {}
        return self.stream.test_examples(
            1, heldout=False, trained_until=0, known=known, inputs=self.functions.program.inputs
        )


def sliced(data: Any, first: int, rows: int, ours: Ours) -> Any:
    """The same update on `rows` of its examples."""
    cut = ours.jax.tree.map(lambda leaf: leaf[first : first + rows], data.rows)
    return data._replace(rows=cut, size=ours.jax.numpy.int32(rows))


def setting(ours: Ours, items: int) -> str:
    """What the peers' SASRec must know."""
    model = ours.config["model"]
    chosen = {
        "items": items,
        "length": ours.stream.history,
        "width": model["width"],
        "blocks": model["blocks"],
        "rate": model["dropout"],
        "limit": model["limit"],
        "batch": ours.config["training"]["batch_size"],
        "learning_rate": ours.config["optimizer"]["learning_rate"],
    }
    return json.dumps(chosen)
