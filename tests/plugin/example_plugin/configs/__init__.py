"""Found by Hydra as pkg://example_plugin.configs."""
