"""One form of command line for studies and benchmarks."""

import subprocess
from pathlib import Path

import pytest

from incremental.app.options import NEEDED, Option, options, parsed
from incremental.errors import UserError

ROOT = Path(__file__).parents[2]
KNOWN = {
    "path": Option(NEEDED, "the data"),
    "runs": Option(Path("runs"), "what is written"),
    "rounds": Option(3),
    "some": Option(0, "so many; 0: all"),
    "sizes": Option([10, 20]),
    "quick": Option(False),
    "rows": Option(["a", "b, c"], choices=["a", "b, c"]),
    "note": Option(None),
}


def test_values_have_the_types_of_the_defaults() -> None:
    chosen, left = parsed(
        ["path=x=y", "runs=~/r", "rounds=5", "quick=true", 'rows=["b, c"]', "note=3", "data.seed=1"], KNOWN, others=True
    )
    assert (chosen.path, chosen.rounds, chosen.quick, chosen.rows, chosen.note) == ("x=y", 5, True, ["b, c"], "3")
    assert chosen.runs == Path("~/r").expanduser()
    assert left == ["data.seed=1"]
    assert parsed(["path=x", "rows=a"], KNOWN, others=False)[0].rows == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "x"], "--path: expected KEY=VALUE with one of path, runs, .*; did you mean path=…"),
        (["--rounds=3"], "did you mean rounds=3"),
        (["path=x", "row=a"], "row=a: .*did you mean rows=a"),
        (["path=x", "rounds=fast"], "rounds=fast: expected int, such as 3"),
        (["path=x", "rounds=true"], "rounds=true: expected int"),
        (["path=x", "rounds=0"], "rounds=0: expected a whole number >= 1"),
        (["path=x", "some=-1"], "some=-1: expected a whole number >= 0"),
        (["path=x", "sizes=[10,-1]"], "sizes=-1: expected a whole number >= 0"),
        (["path=x", "rows=[a,d]"], r"rows=\[a,d\]: d is not one of a, b, c"),
        ([], "path: a value is needed \\(the data\\); give it as path=…"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=message):
        parsed(arguments, KNOWN, others=False)
    with pytest.raises(SystemExit) as ended:
        options(arguments, "Doc.", KNOWN)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_has_the_documentation_and_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(["--help"], "What it does.", KNOWN, others=True)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "What it does."
    assert [line.split()[0].partition("=")[0] for line in lines[3:]] == [*KNOWN, "KEY"]
    assert '  rows=[a,"b, c"]' in "\n".join(lines)
    assert next(line for line in lines if line.startswith("  rounds=3")).endswith(" a whole number >= 1")
    assert next(line for line in lines if line.startswith("  some=0")).endswith(" so many; 0: all; a whole number >= 0")


@pytest.mark.parametrize("name", ["experiments/ader/run", "experiments/regimes/run", "experiments/tuning/run"])
def test_every_study_has_help(name: str) -> None:
    shown = subprocess.run([str(ROOT / name), "--help"], capture_output=True, text=True, check=True).stdout
    assert f"usage: {name} " in shown
    assert "=" in shown


def test_no_script_has_a_form_of_its_own() -> None:
    """All but the guard and the peers' own process, which no user starts."""
    for file in [*(ROOT / "scripts").iterdir(), *(ROOT / "experiments").rglob("*.py")]:
        if file.is_file() and file.name != "peers.py":
            assert "argparse" not in file.read_text(), file


def test_the_peers_own_process_needs_nothing_of_this_project() -> None:
    """Their Python does not have it."""
    lines = (ROOT / "scripts" / "peers.py").read_text().splitlines()
    assert not [line for line in lines if line.strip().startswith(("import incremental", "from incremental"))]
