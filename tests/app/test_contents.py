"""A run is found again on another machine: its identity has what its files hold, and not where they lie."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from incremental.app.contents import has_more, of
from incremental.app.rundir import identity


def config(data: Path, base: Path | None = None, encoder: Path | None = None) -> dict[str, Any]:
    text = (
        {"_target_": "incremental.data.encoded.encoded", "path": str(encoder), "cache": str(data)} if encoder else None
    )
    source = {"_target_": "columns", "path": str(data / "events.csv"), "items_path": "items.csv", "text": "title"}
    return {
        "seed": 0,
        "runs": str(data),
        "base": None if base is None else str(base),
        "devices": {},
        "strategies": {},
        "data": {"source": source, "text": text},
        "model": {"_target_": "encoder_items", "path": str(encoder)} if encoder else {"_target_": "sasrec"},
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "events.csv").write_text("user,item,time\n1,2,3\n")
    (folder / "items.csv").write_text("item,title\n2,Two\n")
    return folder


def test_the_same_files_elsewhere_are_the_same_run(data: Path, tmp_path: Path) -> None:
    there = shutil.copytree(data, tmp_path / "other" / "there")
    assert identity(config(data)) == identity(config(there))
    for name, text in (("items.csv", "item,title\n2,Too\n"), ("events.csv", "user,item,time\n1,2,4\n")):
        before = (there / name).read_text()
        (there / name).write_text(text)
        assert identity(config(data)) != identity(config(there))
        (there / name).write_text(before)
        assert identity(config(data)) == identity(config(there))


def test_encoders_and_base_runs_too(data: Path, tmp_path: Path) -> None:
    made = []
    for place in ("one", "two"):
        encoder, base = tmp_path / place / "encoder", tmp_path / place / "base"
        encoder.mkdir(parents=True)
        base.mkdir()
        (encoder / "model.safetensors").write_bytes(b"weights")
        (base / "summary.json").write_text(json.dumps({"config": "0123abcd"}))
        made.append(config(data, base, encoder))
    assert identity(made[0]) == identity(made[1])
    other = copy.deepcopy(made[1])
    (tmp_path / "two" / "base" / "summary.json").write_text(json.dumps({"config": "ffffffff"}))
    assert identity(made[0]) != identity(other)
    (tmp_path / "two" / "base" / "summary.json").write_text(json.dumps({"config": "0123abcd"}))
    (tmp_path / "two" / "encoder" / "model.safetensors").write_bytes(b"others!")  # as long
    assert identity(made[0]) != identity(made[1])


def test_a_folder_is_the_files_in_it(data: Path) -> None:
    before = of(data)
    (data / ".DS_Store").write_text("")
    (data / "runs").mkdir()  # of `incremental` started in the folder with the data
    (data / "runs" / "summary.json").write_text("{}")
    assert of(data) == before
    (data / "period_1.txt").write_text("1 2\n")
    assert of(data) != before


def test_a_checkpoint_is_its_modules_too(data: Path, tmp_path: Path) -> None:
    """Of one in several folders, which its modules.json names, pooling and weights lie in these."""
    encoder = tmp_path / "encoder"
    (encoder / "1_Pooling").mkdir(parents=True)
    (encoder / "notes").mkdir()
    (encoder / "modules.json").write_text('[{"type": "Pooling", "path": "1_Pooling"}]')
    (encoder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    before = identity(config(data, encoder=encoder))
    (encoder / "notes" / "config.json").write_text("{}")
    assert identity(config(data, encoder=encoder)) == before
    (encoder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert identity(config(data, encoder=encoder)) != before
    (encoder / "modules.json").write_text("no list")
    assert identity(config(data, encoder=encoder)) != before


def test_a_file_is_those_of_its_name(data: Path) -> None:
    """RecBole's titles are in a file that no key names."""
    before = of(data / "events.csv")
    (data / "other.item").write_text("x")
    assert of(data / "events.csv") == before
    (data / "events.item").write_text("x")
    assert of(data / "events.csv") != before


def test_so_are_those_that_a_pattern_matches(tmp_path: Path) -> None:
    for name in ("a.inter", "a.item", "other.item"):
        (tmp_path / name).write_text("x")
    before = of(tmp_path / "*.inter")
    (tmp_path / "other.item").write_text("y")
    assert of(tmp_path / "*.inter") == before
    (tmp_path / "a.item").write_text("y")
    assert of(tmp_path / "*.inter") != before


def test_files_that_do_not_count_are_known_to_be_there_below_partitions_too(tmp_path: Path) -> None:
    """A reader reads them, so that a run with them is not known by the bytes that count."""
    part = tmp_path / "year=2024" / "month=1"
    part.mkdir(parents=True)
    (part / "part.csv").write_text("x")
    places = [str(tmp_path), str(tmp_path / "year=*")]
    assert [has_more(place) for place in places] == [False, False]
    (part / "later").mkdir()
    assert [has_more(place) for place in places] == [True, True]


@pytest.mark.parametrize(("log", "titles"), [("a.inter.gz", "a.item"), ("a.inter", "a.item.zst")])
def test_compressed_or_not(log: str, titles: str, tmp_path: Path) -> None:
    (tmp_path / log).write_text("x")
    (tmp_path / titles).write_text("one")
    before = of(tmp_path / log)
    (tmp_path / titles).write_text("other")
    assert of(tmp_path / log) != before


def test_a_name_that_is_no_path_stays(data: Path, tmp_path: Path) -> None:
    one, two = config(data, encoder=Path("a/checkpoint")), config(data, encoder=Path("another/checkpoint"))
    assert identity(one) != identity(two)
    assert of(tmp_path / "nothing") is None


def test_the_order_of_strategies_is_part_of_a_run(data: Path) -> None:
    a, b = {"_target_": "a"}, {"_target_": "b"}
    one, two = config(data) | {"strategies": {"x": a, "y": b}}, config(data) | {"strategies": {"y": b, "x": a}}
    assert identity(one) != identity(two)
