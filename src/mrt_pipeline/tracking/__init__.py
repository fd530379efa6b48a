"""MLflow, where kedro-mlflow does not reach."""
