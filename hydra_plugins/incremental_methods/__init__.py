"""`method=NAME` for every update, strategy and baseline that the configs and those of plugins have."""
