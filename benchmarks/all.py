"""What docs/performance.md quotes, one after the other, on one thread; some ten minutes on an idle machine.

Not `prover.py`, which needs vLLM, and not `rl_step.py --lora`, which takes as long again.

python benchmarks/all.py
"""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
BASE = FOLDER.parent / "src/mrt_pipeline/policy/bases/countdown"
COMMANDS = (
    ["rl_step.py", "--policy", str(BASE)],
    ["rl_step.py", "--policy", str(BASE), "--groups", "32"],
    ["sampling.py"],
    ["growth.py"],
    ["grading.py"],  # as many processes as cores
)


def main():
    for command in COMMANDS:
        print("==", *command, flush=True)
        done = subprocess.run(
            [sys.executable, FOLDER / command[0], *command[1:]],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        print("\n".join(line for line in done.stdout.splitlines() if not line.startswith("{")), flush=True)


if __name__ == "__main__":
    main()
