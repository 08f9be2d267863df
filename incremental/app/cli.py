"""The `incremental` command: Hydra composes a configuration, `incremental.app.experiment` runs it."""

import difflib
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from incremental.app.keys import taken
from incremental.app.methods import defaults, model_name, names
from incremental.app.names import typed
from incremental.app.overrides import check, command, pasted, with_places
from incremental.app.refusals import refusal
from incremental.app.replaced import at, replaced
from incremental.errors import UserError
from incremental.shell import cache_folder, enter, once, reported, translated

if TYPE_CHECKING:
    from incremental.app.bases import Store


def config_folder() -> Path:
    """The configs: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values."""
    try:
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        said, key = str(error).splitlines()[0], str(error.full_key or "")
        written = raw(config, key)
        as_text = f"; ${{…}} is read as a reference, as a text it is {pasted(key, written)}" if written else ""
        raise UserError(f"{key or 'the configuration'} does not resolve: {said}{as_text}") from None
    return dict(values)


def raw(config: DictConfig, key: str) -> str | None:
    """The text at a dotted key as it is written, if it is a text."""
    node: Any = OmegaConf.to_container(config, resolve=False)
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, str) else None


def composed(overrides: Sequence[str]) -> tuple[DictConfig, Mapping[str, str]]:
    """The config of an `incremental` command line, open and not yet resolved, and what was chosen for its groups."""
    refuse_nameless(check(overrides, multirun=False))
    overrides = [*map(typed, overrides)]
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            config: Any = hydra.compose("config", overrides, return_hydra_config=True)
    except HydraException as error:
        raise refused(error, overrides) from None
    except OmegaConfBaseException as error:
        raise UserError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None
    refuse_contradictions(config.hydra.runtime)
    choices = chosen(config.hydra.runtime, config)
    given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # they may hold references
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    replaced(config, given, choices)
    return config, choices


def refused(error: HydraException, overrides: Sequence[str]) -> UserError:
    """What Hydra does not compose, in one line."""
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        said = refusal(error, overrides, lambda given: hydra.compose("config", given, return_hydra_config=True))
    return UserError(said)


def chosen(runtime: Any, config: Any) -> dict[str, str]:
    """What was chosen for each group; a model by a factory in place of the chosen one's is called as the factory."""
    choices, factory = dict(runtime.choices), (at(config, "model") or {}).get("_target_")
    if isinstance(factory, str):
        addresses = [f"{one.schema}://{one.path}" for one in own(runtime)]
        choices["model"] = model_name(choices["model"], factory, addresses)
    return choices


def own(runtime: Any) -> list[Any]:
    """Where the configs come from, without Hydra's own."""
    return [
        source
        for source in runtime.config_sources
        if source.schema in ("file", "pkg") and not source.path.startswith("hydra.")
    ]


def refuse_nameless(overrides: Sequence[Override]) -> None:
    """Refuses what is no name where one of a group's choices is named: null, a number, a truth value."""
    for one in overrides:
        folder, named = config_folder() / one.key_or_group, one.is_delete() or one.is_sweep_override()
        if not named and (folder.is_dir() or one.key_or_group == "method") and not isinstance(one.value(), str | list):
            there = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "finetune, replay, …"
            raise UserError(f"{one.input_line}: expected a name ({there}); for the default leave it out")


def swept(overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep as Hydra takes them."""
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            return with_places(overrides, loader, lambda given: hydra.compose("config", given))
    except (HydraException, OmegaConfBaseException):
        return list(overrides)  # Hydra says what is wrong


def study(file: Path, arguments: Sequence[str]) -> DictConfig:
    """A study's own configuration, a file outside the configs, with the overrides of its command line."""
    arguments = [*map(typed, arguments)]
    check(arguments, multirun=False)
    try:
        with hydra.initialize_config_dir(str(file.parent.resolve()), version_base="1.3"):
            return hydra.compose(file.stem, arguments)
    except (HydraException, OmegaConfBaseException) as error:
        there = ", ".join(map(str, OmegaConf.load(file)))
        said = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"{file.parent}/run: {said}; its options are {there}") from None


OPTIONAL = ("method", "protocol", "experiment", "sweep", "data/cut")
"""groups without a choice by default: a choice that there is not Hydra leaves out without a word"""


def items(folder: Any) -> list[Any]:
    """The files of a folder, which need not be there."""
    return list(folder.iterdir()) if folder.is_dir() else []


def refuse_contradictions(runtime: Any) -> None:
    """What Hydra would settle without a word: one name in two folders or in none, a row whose choice is overridden."""
    sources = own(runtime)
    roots: list[Any] = [files(one.path) if one.schema == "pkg" else Path(one.path) for one in sources]
    for group, choice in runtime.choices.items():
        file = f"{group.partition('@')[0]}/{choice}.yaml"
        found = [root.joinpath(file) for root in roots if root.joinpath(file).is_file()]
        if len(found) > 1:
            raise UserError(f"{' and '.join(map(str, found))} have the same name; rename the one that is yours")
        addresses = [f"{one.schema}://{one.path}" for one in sources]
        if group in OPTIONAL and choice and not found and not (group == "method" and defaults(choice, addresses)):
            there = {
                file.name[:-5] for root in roots for file in items(root.joinpath(group)) if file.name[-5:] == ".yaml"
            }
            known = sorted(there | set(names(addresses) if group == "method" else ()))
            close = difflib.get_close_matches(choice, known, n=1)
            guess = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{group}={choice}: there is {', '.join(known)}{guess}")
        if group == "method" and choice:
            meant = (
                OmegaConf.create(found[0].read_text(encoding="utf-8")).get("defaults", [])
                if found
                else defaults(choice, addresses)
            )
            for default in meant:
                ((key, wanted),) = default.items()
                name = key.removeprefix("override /")
                taken = runtime.choices.get(name, wanted)
                if taken != wanted:
                    raise UserError(
                        f"method={choice} means {name}={wanted}, the command line says {name}={taken}; leave one out. "
                        f"In a sweep, run method={choice} by a second command into the same runs=FOLDER, or give "
                        f"{name}= in the rows that need it (study=FILE, docs/sweeps.md)"
                    )


CACHE_ERROR = "Error (reading|writing) persistent compilation cache entry"
"""how JAX's warnings about its cache begin"""


def compilation_cache() -> None:
    """Keeps compiled programs between runs; JAX_COMPILATION_CACHE_DIR says where, JAX_ENABLE_COMPILATION_CACHE if.

    A cache that cannot be read or written costs a line, and its programs are compiled anew.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := cache_folder()) is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    warnings.filterwarnings("always", CACHE_ERROR)  # whatever becomes of other warnings
    shown = warnings.showwarning

    def show(message: Warning | str, *where: Any) -> None:
        text = str(message)
        if not re.match(CACHE_ERROR, text):
            shown(message, *where)
            return
        folder = getattr(jax.config, "jax_compilation_cache_dir", "")
        verb, reason = ("read", "remove the folder") if " reading " in text else ("written", "choose another folder")
        once(
            f"note: the compilation cache {folder} cannot be {verb} "
            f"({text.partition(': ')[2].splitlines()[0]:.120}); programs are compiled anew. If later runs say so "
            f"again, {reason} (JAX_COMPILATION_CACHE_DIR)"
        )

    if getattr(shown, "__module__", "") != __name__:  # a process begins several runs
        warnings.showwarning = show  # type: ignore[assignment]


def read(config: DictConfig) -> dict[str, Any]:
    """One job's configuration, resolved and checked against what Hydra knows of it."""
    values = resolved(config)
    replaced(values, HydraConfig.get().overrides.task, HydraConfig.get().runtime.choices)
    if values.get("study"):
        raise UserError(
            f"study={values['study']}: a study is a sweep: incremental -m study=… (with hydra/sweeper=study)"
        )
    refuse_contradictions(HydraConfig.get().runtime)
    compilation_cache()
    from incremental.app.experiment import named

    values = named(values, chosen(HydraConfig.get().runtime, values))
    if HydraConfig.get().mode == RunMode.MULTIRUN and values["tracking"].get("group", "") is None:
        values["tracking"]["group"] = os.path.basename(os.path.abspath(values["runs"]))
    return values


def headline(config: dict[str, Any], summary: dict[str, Any] | None) -> float | None:
    """What a job returns to sweepers: its prequential quality by the first metric, None where none was measured."""
    if summary is None:
        return None
    quality = summary["metrics"][config["evaluation"]["metrics"][0]]["prequential"]
    return None if quality is None else float(quality)


@cache
def shared_store() -> "Store":
    """What the jobs of this process's sweep share, where a launcher runs them one by one."""
    from incremental.app.bases import Store

    return Store()


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
def job(config: DictConfig) -> float | None:
    """One run; returns the prequential headline metric, for sweepers."""
    with reported():
        try:
            with translated():
                values = read(config)
                from incremental.app.experiment import execute

                sweeps = HydraConfig.get().mode == RunMode.MULTIRUN
                return headline(values, execute(values, shared_store() if sweeps else None))
        except UserError as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                raise
            # An exit would end the whole sweep; this is told again when the other jobs are over.
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise CompactHydraException(str(error)) from None


def run_job(overrides: Sequence[str]) -> None:
    """Hydra's part of the command; what it refuses to compose is told in one line, unless HYDRA_FULL_ERROR asks."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        job()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # or Hydra would print, and end the program
    try:
        job()
    except HydraException as error:
        GlobalHydra.instance().clear()
        raise refused(error, overrides) from None
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def main() -> None:
    """Entry point."""
    enter()
    OmegaConf.register_new_resolver("domains", lambda _root_: taken(_root_), replace=True)  # for the help
    with reported():
        sys.argv[1:] = map(typed, sys.argv[1:])
        overrides, multirun = command(sys.argv[1:])
        refuse_nameless(check(overrides, multirun=multirun))
        if multirun:
            placed = dict(zip(overrides, swept(overrides), strict=True))
            sys.argv = [placed.get(argument, argument) for argument in sys.argv]
        run_job(overrides)
