"""The `incremental-serve` command."""

import argparse
import sys
from collections.abc import Sequence

from incremental.errors import UserError
from incremental.shell import enter, path, status

USAGE = """incremental-serve [--part server|learner:NAME] [GROUP=CHOICE ...] [KEY=VALUE ...]
       incremental-serve promote FOLDER LEARNER [--version N] [--reason TEXT]
       incremental-serve rollback FOLDER [--version N] [--reason TEXT]"""
ABOUT = """Recommend, take events, learn from them, and put each new model in place (docs/live.md).

  incremental-serve experiment=live                                 in the folder live/
  incremental-serve experiment=live live.folder=DIR live.cut.count=200 +strategy@strategies.memory=replay
  incremental-serve experiment=live base=RUN                        begins with the events of a run
  incremental experiment=live live.folder=DIR                       the same run again, from its log

promote: the versions of LEARNER serve from now on, or its version N only. rollback: the version before, or version N,
of the learner that serves does. Both are records of the log. GROUP=CHOICE and KEY=VALUE are those of `incremental`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts a live loop, or says which model serves in one."""
    enter()
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    return status(lambda: choose(given) if given[:1] in (["promote"], ["rollback"]) else start(given))


def start(arguments: list[str]) -> None:
    """A live loop, or one of its parts in this process."""
    parser = argparse.ArgumentParser(
        prog="incremental-serve", usage=USAGE, description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", help="only the server, or only the learner of this name, as server or learner:NAME")
    options, overrides = parser.parse_known_args(arguments)
    if strange := [one for one in overrides if one.startswith("-")]:
        raise UserError(f"{strange[0]}: no such option; incremental-serve has --part and --help")
    from incremental.app.cli import compilation_cache
    from incremental.serve.live import configuring
    from incremental.serve.live.parent import follow

    config, live = configuring.composed_of(overrides)
    if options.part is None:
        from incremental.serve.live.supervisor import supervise

        own = [one for one in overrides if configuring.key_of(one) != "base"]
        supervise(live, own, config["base"])
        return
    follow()
    compilation_cache()
    part, _, name = options.part.partition(":")
    if options.part == "server":
        from incremental.serve.live import server

        server.run(config)
    elif part == "learner" and name:
        from incremental.serve.live import learner

        learner.main(configuring.learner(overrides, live, name), live, name)
    else:
        raise UserError(f"--part {options.part}: expected server or learner:NAME")


def choose(arguments: list[str]) -> None:
    """Writes a choice into the log."""
    parser = argparse.ArgumentParser(prog="incremental-serve", usage=USAGE)
    parser.add_argument("what")
    parser.add_argument("folder", type=path, help="the live folder")
    if arguments[0] == "promote":
        parser.add_argument("learner", help="whose versions serve from now on")
    parser.add_argument("--version", type=int, help="of the learner; it stays until the next choice")
    parser.add_argument("--reason", default="", help="kept with the choice")
    options = parser.parse_args(arguments)
    from incremental.log.place import open_log
    from incremental.log.records import LONGEST_REASON
    from incremental.serve.live import choices
    from incremental.serve.live.settings import noted
    from incremental.serve.live.tail import Tail
    from incremental.serve.live.versions import LEARNERS

    if (length := len(options.reason)) > LONGEST_REASON:
        raise UserError(f"--reason has {length:,} characters; give at most {LONGEST_REASON:,}")
    place, champion = noted(options.folder)
    tail = Tail(open_log(place), place)
    try:
        tail.read()
        learners = options.folder / LEARNERS
        if arguments[0] == "promote":
            choice = choices.promotion(learners, options.learner, options.version, options.reason)
        else:
            now = choices.serving(learners, champion, next(reversed(tail.choices.values()), None))
            choice = choices.rollback(learners, now, options.version, options.reason)
        tail.log.append([choice])
    finally:
        tail.log.close()
    version = "always the newest version" if choice.version is None else f"version {choice.version}"
    print(f"{options.folder}: {choice.learner} serves from now on, {version}")
