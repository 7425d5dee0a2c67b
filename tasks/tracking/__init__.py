"""MLflow: runs, the model registry, and pulling adapters from it."""
