"""The rows of docs/errors.md: a situation, and what the program says in it."""

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
VARIABLE = "INCREMENTAL_DOCUMENT_ERRORS"  # the file to append rows to
HEAD = """# What the program says when something is wrong

Each message below is that of a test. `scripts/document_errors` writes this page. FOLDER is a folder of the test.

| situation | message |
|---|---|
"""


def row(situation: str, message: str) -> str:
    """One line of the table."""
    cells = (" ".join(cell.split()).replace("|", "\\|") for cell in (situation, message))
    return "| " + " | ".join(cells) + " |\n"
