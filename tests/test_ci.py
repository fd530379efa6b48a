""".ci/run with stand-ins for the commands that it runs: none of them may fail unseen."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ["python3", "pip", "ruff", "ruff", "lint-imports", "mypy", "mkdocs"]
PARTS += ["python3", "pip", "pip", "python"]  # the library alone
PARTS += ["pytest"]
BROWSER = ["apt-get", "apt-get", "pytest"]
AFTER = ["python3", "pip", "pip", "pytest", "pytest"]  # vLLM
STEPS = ["install", "lint", "types", "pages", "library alone", "tests", "browser", "vLLM"]
COMMANDS = "pip pytest python ruff lint-imports mypy mkdocs"
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >> "$CALLS"
if [ "$(wc -l < "$CALLS")" = "$FAILS" ]; then exit 7; fi
if [ "$2" = venv ]; then mkdir -p "$3/bin"; for c in $COMMANDS; do cp "$0" "$3/bin/$c"; done; fi
if [ "$1" = install ] && [ "$3" = -y ]; then cp "$0" "$(dirname "$0")/chromium"; fi
"""


def run(folder, fails, user):
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", folder / ".ci")
    commands = folder / "commands"
    commands.mkdir()
    for name in ("bash", "dirname", "basename", "wc", "mkdir", "cp"):
        (commands / name).symlink_to(shutil.which(name))
    for name, text in {"python3": STAND_IN, "apt-get": STAND_IN, "id": f"#!/bin/bash\necho {user}\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    environment = {"PATH": str(commands), "CALLS": str(calls), "FAILS": str(fails), "COMMANDS": COMMANDS}
    done = subprocess.run([str(folder / ".ci/run")], env=environment, cwd=os.sep, capture_output=True, text=True)
    return done, [line.split()[0] for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("fails", range(1, len(PARTS + BROWSER + AFTER) + 1))
def test_it_ends_with_the_status_of_the_first_part_that_fails(tmp_path, fails):
    done, called = run(tmp_path, fails, user=0)
    assert done.returncode == 7, done.stderr
    assert called == (PARTS + BROWSER + AFTER)[:fails]


def test_all_parts_run_and_it_succeeds_if_they_do(tmp_path):
    done, called = run(tmp_path, 0, user=0)
    assert done.returncode == 0, done.stderr
    assert called == PARTS + BROWSER + AFTER
    assert all(f"== {name}: 0 min" in done.stdout for name in STEPS)


def test_who_cannot_install_a_browser_is_told_what_is_skipped(tmp_path):
    done, called = run(tmp_path, 0, user=1000)
    assert done.returncode == 0 and "browser tests are skipped" in done.stdout
    assert called == PARTS + AFTER
