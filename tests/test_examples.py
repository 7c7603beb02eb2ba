"""The examples, as somebody would run them, on photos made here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.products import write_photos

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("plain_torch.py",),
        ("timm_training.py", "--model", "mobilenetv2_050"),
        ("lightning_training.py",),
    ],
    ids=["plain torch", "timm", "lightning"],
)
def test_an_example_trains(tmp_path, arguments):
    if arguments[0].startswith("lightning"):
        pytest.importorskip("lightning")
    photos = write_photos(tmp_path, train=6, test=1) / "train"
    file, *rest = arguments
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "examples" / file),
            str(photos),
            "--epochs",
            "2",
            "--random",
            *rest,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^epoch \d: loss (.*)$", done.stdout, re.M)]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)
