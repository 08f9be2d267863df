"""The sweeper that chooses hyper-parameters by Optuna on the first increments: `hydra/sweeper=optuna`."""
