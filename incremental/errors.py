"""The one exception for a user's mistake: commands print its text and exit with 2, without a traceback."""


class UserError(Exception):
    """Says what was wrong (file, row, key or option), what was expected, and what to do."""
