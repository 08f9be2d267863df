"""Out of memory: which increment needs the most, and what is said where there is not so much."""

import contextlib
from collections.abc import Iterator

import jax

from incremental.core.types import bytes_of
from incremental.errors import UserError
from incremental.run.executor import Executor
from incremental.run.feed import Feed
from incremental.run.policy import Plan, Update

WORDS = ("resource_exhausted", "out of memory", "bad_alloc", "failed to allocate", "unable to allocate")
LOWER = "lower training.batch_size; choose head=sampled_softmax with training.rows=compact, or head=chunked_softmax"
FINER = "cut the stream finer (data.cut)"


def largest(feed: Feed, policy: Update) -> tuple[int, Plan]:
    """The update that trains on the most events."""
    return max(policy.plans(len(feed.stream)), key=lambda each: len(feed.stream.training_events(each[1].increments)))


def exhausted(error: BaseException) -> bool:
    """Whether memory was what failed."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (jax.errors.JaxRuntimeError, ValueError)) and any(
        word in str(error).lower() for word in WORDS
    )


@contextlib.contextmanager
def spoken(feed: Feed, executor: Executor, policy: Update, batch_size: int | None) -> Iterator[None]:
    """Within it, a lack of memory is a UserError that says what the largest increment needs, and what to lower.

    Nothing is compiled for that: a compiler wants memory too.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError, ValueError) as error:
        if not exhausted(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        executor.state = executor.best = executor.before = executor.after = None  # room for what is made below
        raise UserError(
            f"out of memory ({said}): {needed(feed, executor, policy, batch_size)}; {remedy(batch_size)}"
        ) from None


def remedy(batch_size: int | None) -> str:
    """What to lower; a model without gradients (None) has neither batches nor a head."""
    return f"{'choose another model' if batch_size is None else LOWER}; or {FINER}"


def needed(feed: Feed, executor: Executor, policy: Update, batch_size: int | None) -> str:
    """What the largest increment needs at least, in words."""
    way, (t, plan) = executor.way, largest(feed, policy)
    sizes = feed.sizes(len(feed.stream) - 1, executor.program.inputs)
    state = bytes_of(jax.eval_shape(way.at(sizes).program.init, jax.random.key(0)))
    events, part = len(feed.stream.training_events(plan.increments)), f"increment {t}" if t else "the base part"
    found = f"at the largest part ({part}, {events:,} training events, {sizes.slots:,} {sizes.labels}s) "
    found += f"the state of {f'each of {way.total} lanes' if way.total > 1 else 'the run'} takes {state:,} bytes"
    if batch_size:
        scores = 4 * batch_size * sizes.slots
        found += f", and the scores of a batch for all {sizes.labels}s {batch_size} x {sizes.slots:,} x 4 = {scores:,}"
        found += " bytes, several times"
    return found + " (dry_run=true says it exactly)"
