"""Roles: what a published split makes of each event of the base part, and which events after it are tested.

Without roles a share of each part is drawn for validation, the rest trains, and every event is tested. With them an
event of the base part trains, or is validated on, or is neither: then it is only what was before others. After the
base part the shares are drawn as ever.

`last_item`, `by_time` and `by_user` are the three ways to take a validation part out of the data before a cut that
Gusak et al. compare (RecSys 2025, arXiv 2507.16289); the first is leave-one-out's too, behind its cut. They read the
base part and nothing after it. Users with one event of it have no role there.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from incremental.data.choosing import first_of_each, last_of, share_of_each, with_two
from incremental.data.interactions import Interactions
from incremental.domains import Count, InnerShare, Seed, checked
from incremental.errors import UserError

Ints = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]
Targets = Literal["all", "last", "first", "random"]


class Roles(NamedTuple):
    """[E] bool each.

    Attributes:
        trains
        validates: says when to stop
        tested
    """

    trains: Bools
    validates: Bools
    tested: Bools

    def prefix(self, n: int) -> "Roles":
        """Of the first n events."""
        return Roles(*(own[:n] for own in self))


Split = Callable[[Interactions, Bools], tuple[Bools, Bools]]
"""(log, which events are of the base part) -> which train, which are validated on"""


@checked
def last_item(*, users: Count | None = None, seed: Seed = 17) -> Split:
    """Each user's last event is validated on; the others train, where two are left.

    `users`: validated on are at most so many users, drawn from `seed`; None: all of them.
    """

    def split(log: Interactions, base: Bools) -> tuple[Bools, Bools]:
        inside = with_two(log.user, base)
        last = last_of(log.user, inside)
        return with_two(log.user, inside & ~last), at_most(users, last, seed)

    return split


@checked
def by_time(*, quantile: InnerShare = 0.9, users: Count | None = None, seed: Seed = 17) -> Split:
    """The times' `quantile` q cuts once more: what is not later trains, of users with two such events. Of users with a
    later event the last one is validated on; `users` as in `last_item`."""

    def split(log: Interactions, base: Bools) -> tuple[Bools, Bools]:
        inside = with_two(log.user, base)
        early = log.time <= np.quantile(log.time[inside], quantile)
        return with_two(log.user, inside & early), at_most(users, last_of(log.user, inside) & ~early, seed)

    return split


@checked
def by_user(*, users: Count = 1024, seed: Seed = 42) -> Split:
    """So many users do not train, and their last event is validated on.

    They are drawn without replacement by NumPy's legacy generator from the users in the order of their ids.
    """

    def split(log: Interactions, base: Bools) -> tuple[Bools, Bools]:
        inside = with_two(log.user, base)
        there = np.unique(log.user[inside])
        if len(there) <= users:
            raise UserError(
                f"data.roles.users={users}: expected fewer users than the base part has with two events, {len(there):,}"
            )
        names = [log.users[user] for user in there]
        whole = all(name.isdecimal() for name in names)
        in_order = there[np.argsort([int(name) for name in names] if whole else names, kind="stable")]
        chosen = np.random.RandomState(seed).choice(in_order, users, replace=False)
        out = np.isin(log.user, chosen)
        return inside & ~out, last_of(log.user, inside) & out

    return split


class Shares(NamedTuple):
    """What is drawn of each part, as `make_stream` has it."""

    heldout: float
    validation: float
    validate_on: Literal["own", "next"]
    seed: int


def parts(
    log: Interactions, increment: Ints, shares: Shares, split: Split | None, targets: Targets
) -> tuple[Bools, Bools, Roles | None]:
    """[E] bool each: the held-out and the validated events, and the roles; None: all train or validate, and are tested.

    Validated on the next increment are the first events of each but the base part; they train, and are not tested.
    """
    held, ahead = share_of_each(increment, shares.heldout, shares.seed, 1), shares.validate_on == "next"
    checked = share_of_each(increment, shares.validation, shares.seed, 2) & ~held
    if ahead and split is not None:
        raise UserError(
            "data.roles with data.validate_on=next: the roles say by which events of the base part training stops, "
            "but it would stop by those of increment 1; set data.validate_on=own, or leave data.roles out"
        )
    if ahead:
        checked = first_of_each(increment, shares.validation) & (increment > 0) & ~held
    if split is None and targets == "all" and not ahead:
        return held, checked, None
    drawn = roles_of(log, increment == 0, split, targets, shares.seed)
    checked = np.where((increment == 0) & (split is not None), drawn.validates & ~held, checked)
    return held, checked, drawn._replace(tested=drawn.tested & ~checked) if ahead else drawn


def looks_ahead(unseen_items: str, validate_on: str) -> tuple[str, ...]:
    """What is to be said of settings that use the future."""
    said = {
        "all items are candidates from the start (data.unseen_items=known)": unseen_items == "known",
        "updates stop by the increment after them (data.validate_on=next)": validate_on == "next",
    }
    return tuple(f"{what}: it uses the future" for what, chosen in said.items() if chosen)


def roles_of(log: Interactions, base: Bools, split: Split | None, targets: Targets, seed: int) -> Roles:
    """The roles of a log's events [E], `base` being those of its base part; without a split all of these train."""
    trains, validates = (np.ones(len(log), bool), np.zeros(len(log), bool)) if split is None else split(log, base)
    if not (trains & base).any():
        raise UserError("data.roles: no event of the base part trains; give it more events (data.cut)")
    return Roles(trains | ~base, validates, base | tested(log.user, ~base, targets, seed))


def tested(user: Ints, after: Bools, targets: Targets, seed: int) -> Bools:
    """[E] bool: all events `after` the base part; or of these a user's last, first or a random one, but the user's very
    first event, which has no history."""
    if targets == "all":
        return after
    eligible = after & ~last_of(user[::-1], np.ones(len(user), bool))[::-1]
    if targets == "last":
        return last_of(user, eligible)
    if targets == "first":
        return last_of(user[::-1], eligible[::-1])[::-1]
    order = np.random.default_rng([seed, 4]).permutation(len(user))
    found = np.zeros(len(user), bool)
    found[order] = last_of(user[order], eligible[order])
    return found


def at_most(number: int | None, chosen: Bools, seed: int) -> Bools:
    """[E] bool: a random `number` of the chosen events, or all where there are no more."""
    places = np.flatnonzero(chosen)
    if number is None or len(places) <= number:
        return chosen
    found = np.zeros(len(chosen), bool)
    found[np.random.default_rng([seed, 5]).choice(places, number, replace=False)] = True
    return found
