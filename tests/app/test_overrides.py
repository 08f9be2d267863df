"""What a shell or Hydra's grammar takes for its own comes back in quotes, and the quoted form says what was meant."""

import shlex
from collections.abc import Callable
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from incremental.app import cli, overrides
from incremental.errors import UserError

KEY = "data.source.path"
ODD = [
    "lake/day=2024-01-01/log.csv",
    "été/events (1).csv",
    "#1/a,b.csv",
    "100%/${x}.csv",
    "~/plain.csv",
    "-dash.csv",
    "[old] {new}.csv",
    "it's.csv",
    'say "hi".csv',
    "both ' and \".csv",
    "back\\slash.csv",
    "ends\\",
    "quote\\'d",
    "$HOME `x` !1",
    " blank ends ",
    "用户",
    "\\${y}",
    "\\\\${y}",
    "",
]
SIGNS = ["\\", "${", "}", "'", '"', "=", ",", "~", "#", " ", "a", "[", "]", "(", ")", "%", "!", "`", "$"]
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"])) | st.lists(st.sampled_from(SIGNS)).map("".join)


def read_back(pasted: str) -> Any:
    """What the shell, Hydra and OmegaConf make of a pasted form."""
    [argument] = shlex.split(pasted)
    parsed = OverridesParser.create().parse_override(argument)
    return OmegaConf.create({"key": parsed.value()}).key


@settings(max_examples=300)
@given(TEXTS.filter(lambda text: text != "???"))
def test_a_pasted_form_is_the_text_that_was_meant(text: str) -> None:
    assert read_back(overrides.pasted(KEY, text)) == text


@pytest.mark.parametrize("text", ODD)
def test_so_are_the_names_that_files_have(text: str) -> None:
    pasted = overrides.pasted(KEY, text)
    assert read_back(pasted) == text


@settings(max_examples=200)
@given(TEXTS)
@example("a=b")
def test_what_hydra_refuses_comes_back_in_a_form_that_it_takes(text: str) -> None:
    try:
        overrides.parsed(f"{KEY}={text}")
    except UserError as error:
        said = str(error)
        assert said.startswith(f"{KEY}={text}: ")
        form = said.rpartition("it is a text: ")[2]
        assert read_back(form) == text


@pytest.mark.parametrize(
    ("argument", "form"),
    [
        (f"{KEY}=lake/day=2024-01-01/log.csv", f"\"{KEY}='lake/day=2024-01-01/log.csv'\""),
        (f"{KEY}=été (1).csv", f"\"{KEY}='été (1).csv'\""),
        ("data.source.user=Käufer", "\"data.source.user='Käufer'\""),
        (f"{KEY}=it's", f"\"{KEY}='it\\'s'\""),
    ],
)
def test_the_message_names_the_override_and_the_form(
    argument: str, form: str, documented: Callable[[str, object], None]
) -> None:
    with pytest.raises(UserError) as error:
        overrides.check(["seed=1", argument, "row=x"], multirun=False)
    assert str(error.value).startswith(f"{argument}: ")
    assert shlex.split(str(error.value).rpartition(": ")[2]) == shlex.split(form) or "\\" in form
    if "day=" in argument:
        documented("a value that Hydra's parser refuses", error.value)


def test_several_values_without_a_sweep(documented: Callable[[str, object], None]) -> None:
    with pytest.raises(UserError) as error:
        overrides.check(["data.source.path=old,new.csv"], multirun=False)
    said = str(error.value)
    assert "-m runs one after the other" in said
    assert read_back(said.rpartition(" is ")[2]) == "old,new.csv"
    assert overrides.check(["data.source.path=old,new.csv"], multirun=True)
    documented("several values without -m", said)


def test_a_key_that_is_none() -> None:
    for argument in ("prefix", "a b=1", "=x"):
        with pytest.raises(UserError, match="expected KEY=VALUE"):
            overrides.check([argument], multirun=False)


def test_a_reference_that_leads_nowhere_may_be_a_text(documented: Callable[[str, object], None]) -> None:
    config, _ = cli.composed(["row='of ${day}'"])
    with pytest.raises(UserError) as error:
        cli.resolved(config)
    said = str(error.value)
    assert said.startswith("row does not resolve: Interpolation key 'day' not found")
    [argument] = shlex.split(said.rpartition("as a text it is ")[2])
    assert cli.resolved(cli.composed([argument])[0])["row"] == "of ${day}"
    documented("a reference to a key that is not there", said)


@pytest.mark.parametrize(
    ("given", "placed"),
    [
        ("strategies.anchor.weight=10", "++strategies.anchor.weight=10"),  # both choices have it
        ("strategies.anchor.decay=0.5", "++strategies.anchor.decay=0.5"),  # one of them has
        ("strategies.anchor.wieght=10", "++strategies.anchor.wieght=10"),  # the jobs say what there is
        ("strategies.other.weight=10", "strategies.other.weight=10"),
        ("++strategies.anchor.weight=10", "++strategies.anchor.weight=10"),
        ("strategies.anchor.weight=1,10", "strategies.anchor.weight=1,10"),
        ("training.epochs=3", "training.epochs=3"),
    ],
)
def test_a_fixed_value_of_a_swept_group_gets_its_place(given: str, placed: str) -> None:
    group = "+strategy@strategies.anchor=ewc,online_ewc"
    assert cli.swept([group, given, "seed=0,1"]) == [group, placed, "seed=0,1"]


def test_so_does_that_of_a_swept_method_and_model() -> None:
    for group, fixed in (("method=ewc,si", "strategies.si.damping=0.1"), ("model=gru4rec,popularity", "model.decay=1")):
        assert cli.swept([group, fixed]) == [group, f"++{fixed}"]
    assert cli.swept(["method=glob(*ewc)", "strategies.ewc.weight=2"])[1] == "++strategies.ewc.weight=2"


@pytest.mark.parametrize(
    ("argument", "right"),
    [
        ("data.cut=weekly", "data/cut=weekly"),
        ("data.cut=weekly,daily", "data/cut=weekly,daily"),
        ("++data.cut=weekly", "data/cut=weekly"),
        ("hydra.launcher=packed", "hydra/launcher=packed"),
        ("data.text=hashed_words", "+text@data.text=hashed_words"),
        ("+data.text=hashed_words", "+text@data.text=hashed_words"),
        ("+data/text=hashed_words", "+text@data.text=hashed_words"),
        ("data.task=click", "+task@data.task=click"),
        ("data.features.times=times", "+feature@data.features.times=times"),
        ("strategies.memory=replay", "+strategy@strategies.memory=replay"),
        ("+strategies.replay=replay", "+strategy@strategies.replay=replay"),
    ],
)
def test_a_choice_that_is_given_to_a_key_is_answered_with_its_group(argument: str, right: str) -> None:
    with pytest.raises(UserError) as caught:
        overrides.check(["seed=1", argument], multirun=True)
    assert str(caught.value) == f"{argument}: a choice is given to its group, and not to a key; write {right}"


@pytest.mark.parametrize(
    "argument",
    [
        "data/cut=weekly",
        "+text@data.text=hashed_words",
        "data.text=null",
        "data.cut=${other}",
        "+strategies.mine={_target_:my_package.mine}",
        "+strategies.mine._target_=my_package.mine",
        "strategies.replay.capacity=3",
        "data.source.text=title",
        "hydra.mode=MULTIRUN",
        "~strategies.replay",
    ],
)
def test_other_overrides_are_left_alone(argument: str) -> None:
    assert overrides.check([argument], multirun=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "3"], "--seed: there is no such option (see --help); did you mean seed=3?"),
        (["--seed=3", "model=x"], "--seed=3: there is no such option (see --help); did you mean seed=3?"),
        (["--dry-run", "model=x"], "--dry-run: there is no such option (see --help); did you mean dry_run=…?"),
        (["-x"], "-x: there is no such option (see --help); did you mean x=…?"),
    ],
)
def test_an_option_of_another_form_is_answered_with_an_override(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        overrides.command(arguments)
    assert str(caught.value) == said
    assert overrides.command(["-m", "seed=3", "--cfg", "job"]) == (["seed=3"], True)


def test_a_blank_between_values_is_told() -> None:
    with pytest.raises(UserError, match=r"^seed=0,: nothing follows the comma; several values have no blanks between"):
        overrides.check(["seed=0,", "1"], multirun=True)
