"""The launcher that runs the jobs of a sweep as lanes of compiled programs: `hydra/launcher=packed`."""
