"""The sweeper: every combination of the values given, and the rows of a study's file."""
