"""How long commands take before they do something, as multiples of `import torch`.

    python benchmarks/startup.py [rounds]

Each round times all of them one after the other, so that a busy machine slows all alike; medians are printed. Wanted:
`kedro --help` within 2, a refused request within 3, the first node within 4. The first node is timed in a run of its
own kind: the process ends where Kedro would call the node, and the run's record goes into a temporary folder.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEDRO = "import sys; from kedro.framework.cli import main; sys.argv = ['kedro', *{}]; main()"
FIRST_NODE = "import os; from kedro.pipeline.node import Node; Node.run = lambda *given: os._exit(0); "
COMMANDS = {
    "import torch": "import torch",
    "kedro --help": KEDRO.format(["--help"]),
    "kedro run --help": KEDRO.format(["run", "--help"]),
    "--params nonsense=1": KEDRO.format(["run", "--params", "nonsense=1"]),
    "--params algorithm=nonsense": KEDRO.format(["run", "--params", "algorithm=nonsense"]),
    "--pipeline=nonsense": KEDRO.format(["run", "--pipeline=nonsense"]),
    "--env=nonsense": KEDRO.format(["run", "--env=nonsense"]),
    "first node": FIRST_NODE + KEDRO.format(["run", "--pipeline=mrt_rl", "--params", "preset=smoke"]),
}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MRT_PIPELINE_DATA": folder,
        }
        for _ in range(rounds):
            for name, code in COMMANDS.items():
                started = time.perf_counter()
                done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True)
                seconds[name].append(time.perf_counter() - started)
                if done.returncode != ("nonsense" in name):
                    sys.exit(f"{name} ended with {done.returncode}:\n{done.stderr.decode()}")
    unit = statistics.median(seconds["import torch"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:28} {median:6.2f} s  {median / unit:5.2f} x")


if __name__ == "__main__":
    main()
