"""Sending what earlier runs could not: `python -m mrt_pipeline.tracking.resend`; `kedro run` does it when it starts."""

import sys

from mrt_pipeline.errors import InputError
from mrt_pipeline.paths import enter_project
from mrt_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS
from mrt_pipeline.tracking.journal import send_waiting
from mrt_pipeline.tracking.runs import OUTBOX, configure


def main() -> int:
    """Send all that waits to the server of mlflow.yml; the exit code is 1 if something still waits."""
    try:
        project = enter_project(__doc__)
        configure(CONFIG_LOADER_CLASS(str(project / "conf"), **CONFIG_LOADER_ARGS)["mlflow"])
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    still = send_waiting(OUTBOX)
    print(f"{still} records still wait" if still else "Nothing waits for MLflow")
    return int(still > 0)


if __name__ == "__main__":
    sys.exit(main())
