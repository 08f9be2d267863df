import re
import runpy
import sys
from pathlib import Path

import pytest

from tests import errors

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "incremental" / "strategies" / "README.md",
    *sorted((ROOT / "experiments").glob("*/README.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)
PLACE = re.compile(r"`((?:tests|scripts|experiments|incremental|configs|docs)/[\w./-]+)")
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link may name after #: each title in lower case, without signs, with - for blanks."""
    titles = TITLE.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_reference_of_strategies_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["document_strategies", "check=true"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "document_strategies"))["main"]()
    assert ended.value.code == 0


def test_the_catalogue_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "document_catalogue"))["page"]()
    assert (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8") == made, "run scripts/document_catalogue"
    groups = [
        path.stem for group in ("model", "head", "strategy") for path in (ROOT / "configs" / group).glob("*.yaml")
    ]
    assert not [name for name in groups if f"| [{name}](" not in made]


def test_every_file_of_this_project_that_a_page_names_is_there() -> None:
    named = {place for page in PAGES for place in PLACE.findall(page.read_text(encoding="utf-8"))}
    assert not [place for place in sorted(named) if not (ROOT / place).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, title = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (title and title not in anchors(target)):
            broken.append(link)
    assert not broken, f"{page.relative_to(ROOT)}: these links lead nowhere: {', '.join(broken)}"


def test_each_situation_of_the_errors_page_has_its_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = errors.PAGE.read_text(encoding="utf-8").splitlines()[errors.HEAD.count("\n") :]
    situations = [row.split(" | ")[0].removeprefix("| ").replace("\\|", "|") for row in rows]
    # A test may put a word before or behind: "encoder: …", "…, in a report".
    gone = [text for text in situations if max(re.split(": |, in ", text), key=len) not in tests]
    assert rows
    assert not gone, f"docs/errors.md: run scripts/document_errors; no test says {gone}"


def test_the_readme_invites() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 600, "README.md: move text to docs/"
