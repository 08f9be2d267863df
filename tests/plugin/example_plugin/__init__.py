"""A strategy for `incremental` that lives outside it."""
