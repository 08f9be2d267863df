"""`python -m incremental` is the `incremental` command."""

from incremental.cli import main

main()
