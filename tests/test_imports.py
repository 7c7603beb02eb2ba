"""The library needs torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """
import builtins
import sys
import torch
from torch import nn

OPTIONAL = {"cv2", "numba", "numpy", "PIL", "scipy", "timm", "torchvision", "triton", "tyro"}
original_import = builtins.__import__

# Hidden from lca_fused alone, as torch itself looks for some of them.
def import_without_optional(name, globals=None, *rest, **keywords):
    importer = (globals or {}).get("__name__") or ""
    if importer.startswith("lca_fused") and name.partition(".")[0] in OPTIONAL:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return original_import(name, globals, *rest, **keywords)

builtins.__import__ = import_without_optional
before = set(sys.modules)

import lca_fused
from lca_fused import MaxEntropyLoss, attach_lca

model = attach_lca(nn.Conv2d(3, 4, 32, 32), 5)
loss = MaxEntropyLoss()(model(torch.randn(2, 3, 64, 96)), torch.tensor([0, 4]))
loss.backward()
assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

gained = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not gained & (OPTIONAL - {"numpy", "triton"}), gained
assert not torch.cuda.is_initialized()
"""


def test_works_where_every_optional_package_is_missing_and_starts_no_gpu():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


IMPORTED_ANEW = """
import sys
import torch
import lca_fused
from lca_fused.backends import registered as first

del sys.modules[first.__name__]
import lca_fused.backends.registered as second

assert second is not first
rows, weight = torch.empty(2, 3, 4, 5, device="meta"), torch.empty(6, 5, device="meta")
pooled = torch.ops.lca_fused.accumulate(rows, weight, None, None, "numba")
assert pooled.shape == (2, 6)
"""


def test_operators_can_be_registered_anew():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTED_ANEW],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
