"""`python -m incremental.serve.live`: the `incremental-serve` command, as which its parts are started."""

from incremental.serve.live.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
