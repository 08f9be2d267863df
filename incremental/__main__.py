"""`python -m incremental` is the `incremental` command."""

from incremental.app.cli import main

main()
