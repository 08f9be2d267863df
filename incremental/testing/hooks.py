"""Laws of single hooks: what `grads` draws, what `scores` corrects, what `report` says."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from incremental.core.optimizers import adam
from incremental.core.steps import DataGradient, Setup
from incremental.core.strategy import Strategy, chain
from incremental.core.types import Batch, Params
from incremental.testing.looks import differs, first_batch, gap_between
from incremental.testing.subject import LARGE, NAME, Path, Subject


def reports(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """Finite numbers under the same names after every increment, so that they can be drawn."""
    strategy = subject.strategy(subject.floats)
    for t, path in enumerate(paths):
        for key, value in strategy.report(path.ended.strategy[NAME]).items():
            if not np.isfinite(np.asarray(value)).all():
                yield (
                    f"after increment {t} its report {key!r} is {np.asarray(value)}: the curve of the run has a hole "
                    "there, and means over seeds are no numbers; report 0, or leave it out"
                )
                return


def draws_of_gradients(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """Twice the same gradients, alone and beside a strategy that draws as well."""
    strategy, path = subject.strategy(subject.floats), paths[2]
    if strategy.grads is Strategy().grads:
        return
    own, params = path.begun.strategy[NAME], path.begun.learner.params
    batch = first_batch(strategy, own, path.begun, subject.data[2])

    def drawing(state: object, grads: Params, params: Params, grad_fn: object, batch: Batch, key: Array) -> Params:
        del state, params, grad_fn, batch
        return jax.tree.map(lambda leaf: leaf + 0.0 * jax.random.uniform(key, leaf.shape), grads)

    @jax.jit
    def both() -> tuple[Params, Params]:
        parts = {NAME: strategy}, {"company": Strategy(grads=drawing), NAME: strategy}
        keys = jax.random.key(0), jax.random.key(1)

        setup = Setup(subject.problem(LARGE), chain(**parts[0]), adam())
        grad_fn = DataGradient(setup, params, path.begun.strategy, jnp.int32(2), batch, keys[1])

        def of(parts: dict[str, Strategy]) -> Params:
            states, memory = {NAME: own, "company": ()}, {NAME: batch.memory, "company": None}
            grads = jax.tree.map(lambda leaf: jax.random.normal(keys[1], leaf.shape), params)
            return chain(**parts).grads(states, grads, params, grad_fn, batch._replace(memory=memory), keys[0])

        return of(parts[0]), of(parts[1])

    if gap_between(*both()) > 0.0:
        yield (
            "beside another strategy its `grads` draws something else: a table's rows would differ by more than what "
            "they name; derive all draws from the key that the hook is given"
        )


def corrections(subject: Subject, paths: Sequence[Path]) -> Iterator[str]:
    """`scores` changes what is tested, example by example."""
    strategy, path = subject.strategy(subject.floats), paths[2].ended
    if strategy.scores is Strategy().scores:
        return
    own, inputs = path.strategy[NAME], jax.tree.map(lambda leaf: np.asarray(leaf)[:8], subject.data[2].rows.inputs)

    @jax.jit
    def corrected() -> tuple[Array, Array, Array]:
        raw = subject.problem(LARGE).apply(path.learner.params, inputs).scores
        whole = strategy.scores(own, raw, inputs, False)
        some = [strategy.scores(own, raw[i : i + 1], jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], inputs), False)
                for i in range(4)]  # fmt: skip
        return raw, whole, jnp.concatenate(some)

    raw, whole, single = jax.tree.map(np.asarray, corrected())
    if whole.shape != raw.shape or whole.dtype != raw.dtype:
        yield (
            f"its `scores` returns {whole.dtype}{list(whole.shape)} for {raw.dtype}{list(raw.shape)}: one score an "
            "example and item is ranked"
        )
    elif not differs(whole, raw):
        yield "its `scores` changes nothing in evaluation (training=False): the model alone is tested and served"
    elif gap_between(whole[:4], single) > 1e-5:
        yield (
            "what its `scores` makes of an example depends on the others in the batch: a test in batches of another "
            "size, or a served request, would rank otherwise"
        )
