"""Everything that only a GPU can answer, most telling first: `python -m benchmarks.on_gpu FOLDER`.

Each step is a process of its own, with a limit. What it prints and measures goes to FOLDER as it
comes, so that a machine that is taken away leaves what was done.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SUITE = ("pytest", "benchmarks", "--benchmark-only", "-q", "--benchmark-max-time", "0.2")
# The files with tests for a GPU: to collect all the others, too, takes each process half a minute.
_TESTS = tuple(
    f"tests/test_{name}.py"
    for name in ("arithmetic", "bias", "explain", "kernels", "large_map", "superpoint")
)
_LCA_AND_FLOOR = "(-lca] or -floor])"  # how the names of their rows end
_LAST_WORDS = 20  # seconds that a step has to say what failed; pytest's processes need ten


@dataclass(frozen=True)
class Step:
    """A question, and the command that answers it.

    Attributes:
        name: the name of its files.
        module: what `python -m` runs, and its arguments; "{name}.json" is in the folder.
        seconds: the time after which it is stopped.
    """

    name: str
    module: tuple[str, ...]
    seconds: int


STEPS = (
    Step("tests", ("pytest", *_TESTS, "-m", "gpu", "-q", "-n", "auto"), 240),
    Step("rates", ("benchmarks.rates", "--json", "{name}.json"), 60),
    # Half of it to compile: kernels are made for a D, and no earlier step has this one.
    Step("kernel_times", ("benchmarks.kernel_times", "--json", "{name}.json"), 120),
    *(
        Step(
            name,
            (
                *(*_SUITE, "-m", "gpu and not slow", "--shapes", "acceptance"),
                *("-k", which, "--rows", "acceptance.json"),
            ),
            240,
        )
        for name, which in (
            ("lca", _LCA_AND_FLOOR),
            ("acceptance", f"not {_LCA_AND_FLOOR} and not -lca-triton]"),  # which is what lca is
        )
    ),
    Step(
        "training_step",
        (
            *("benchmarks.training.cost", "--backbone", "resnext101-32x8d", "--batch-size", "64"),
            *("--heads", "gap", "lca", "lca-reference", "--device", "cuda"),
            *("--precision", "bfloat16", "--json", "{name}.json"),
        ),
        90,
    ),
    Step("dispatch", ("benchmarks.dispatch", "--jobs", "8", "--json", "{name}.json"), 240),
    Step(
        "compiled",
        (*_SUITE, "-m", "gpu and slow", "--shapes", "acceptance", "--rows", "acceptance.json"),
        240,
    ),
    Step(
        "rows",
        (*_SUITE, "-m", "gpu and not slow", "--shapes", "rectangles,grid", "--rows", "{name}.json"),
        3600,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; return the process's exit status, which is that of the tests' step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=__doc__)
    parser.add_argument("folder", type=Path, help="where files go")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all steps (default: 60)")
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS])
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
    failed = False
    for step, status in run(chosen, options.folder, 60 * options.minutes):
        print(f"{step.name}: {status}", flush=True)
        failed |= status != "done"
    return int(failed)


def run(steps: Sequence[Step], folder: Path, seconds: float) -> Iterator[tuple[Step, str]]:
    """Run the steps one after the other for so many seconds; yield each and how it ended."""
    end = time.monotonic() + seconds
    for step in steps:
        left = min(step.seconds, end - time.monotonic())
        yield step, _run(step, folder, left) if left > 0 else "no time was left"


def _run(step: Step, folder: Path, seconds: float) -> str:
    module = [
        str(folder / part.format(name=step.name)) if part.endswith(".json") else part
        for part in step.module
    ]
    with (folder / f"{step.name}.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s; what it measured is in {folder}"
        finally:
            _end(process)
    return "done" if status == 0 else f"exit status {status}, see {log.name}"


def _heed_interrupts() -> None:
    """Have a step end when it is interrupted: what runs in the background of a shell ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a step and all it started, or that would share the GPU with the next one.

    It is interrupted first: pytest then says what has failed so far.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WORDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the step, too
    sys.exit(main())
