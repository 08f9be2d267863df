import html.parser
import re
from pathlib import Path

import pytest

from incremental.report import Run, read_runs, table
from incremental.report.grid import COSTS, EXPLAINED_BY
from incremental.report.page import page


class Parsed(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_is_self_contained(study: Path) -> None:
    compared = table(read_runs([study]).finished)
    parsed = Parsed(page(compared, notes=["Left out: somewhere"]))
    pictures = parsed.all("img")
    assert len(pictures) == 3  # over time, against cost, and R of replay
    for picture in pictures:
        assert (picture["src"] or "").startswith("data:image/svg+xml;base64,")
        assert picture["alt"]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    assert len(parsed.all("tr")) == 4 + 10  # the table and the runs
    for expected in ["0.3100 ± 0.0745*", "0.2000 ± 0.0497", "Left out: somewhere", *compared.notes]:
        assert expected in parsed.text


@pytest.mark.usefixtures("unrendered")
def test_every_column_is_explained(study: Path) -> None:
    text = page(table(read_runs([study]).finished))
    explained = text[text.index("How to read the columns") : text.index("<h2>Runs</h2>")]
    titles = [*EXPLAINED_BY.values(), *(title for title, _ in COSTS.values())]
    for title in ("ndcg@10", "p", *(title for title in titles if title != EXPLAINED_BY["standard_error"])):
        assert re.search(rf"(<li>|[;,] ){re.escape(title)}[:,]", explained), title  # that one has a note


@pytest.mark.usefixtures("unrendered")
def test_every_number_leads_to_its_runs(study: Path) -> None:
    text = page(table(read_runs([study]).finished))
    parsed = Parsed(text)
    anchors = {body["id"]: place for place, body in enumerate(parsed.all("tbody")) if body.get("id")}
    links = [link["href"] or "" for link in parsed.all("a")]
    assert len(anchors) == 3
    assert {link.removeprefix("#") for link in links} == set(anchors)
    assert len(links) == 3 * 12  # every cell but the labels
    first = text[text.index('<tbody id="runs-0">') :].split("</tbody>")[0]
    for seed in range(3):
        assert f"<td>{seed}</td><td>{0.28 + 0.03 * seed:.4f}</td><td>{study / f'sasrec-replay-{seed}'}</td>" in first
    assert str(study / "sasrec-finetune-0") not in first


def test_columns_have_their_own_details(sweep: list[Run]) -> None:
    weight = "strategies.anchor.weight"
    text = page(table(sweep, rows=["row"], columns=["model"], sensitivity=weight))
    parsed = Parsed(text)
    assert [head["colspan"] for head in parsed.all("th") if "colspan" in head] == ["1", "3", "3"]
    assert text.count("<h2>ndcg@10, ") == 2
    assert len(parsed.all("table")) == 2 + 2 + 1  # differences and all numbers, details of each, runs
    alts = [image["alt"] for image in parsed.all("img")]
    assert "ndcg@10, sasrec against the value of the hyper-parameter" in alts


def test_page_fits_a_phone() -> None:
    text = page(table([Run("replay", 0, {"ndcg@10": {"prequential": 0.1}})]))
    viewport = [meta for meta in Parsed(text).all("meta") if meta.get("name") == "viewport"]
    assert viewport[0]["content"] == "width=device-width, initial-scale=1"
    assert ".wide { overflow-x: auto;" in text
    assert Parsed(text).all("img") == []


def test_names_are_escaped() -> None:
    text = page(table([Run("<script>x", 0, {"ndcg@10": {"prequential": 0.1}})]))
    assert "&lt;script&gt;x" in text
    assert "<script>" not in text
