"""The latency command runs what it says it times."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from benchmarks.training.onnx_latency import Projection, main, table
from lca_fused import LCA


@pytest.mark.slow
def test_prints_a_row_a_head(capsys):
    main(
        [
            "--backbone",
            "embedded",
            "--image-size",
            "48",
            "--classes",
            "3",
            "--threads",
            "1",
            "--rounds",
            "3",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("head"))  # exporters print too
    rows = [line.split() for line in lines[head + 2 :]]
    assert [row[0] for row in rows] == ["gap-fc", "projection", "lca"]
    assert all(float(value) > 0 for row in rows for value in row[1:])
    assert rows[0][-1] == "1.000"


def test_ratios_are_those_of_the_lower_quartiles_and_medians():
    lines = table({"a": [1.0, 1.0, 9.0, 9.0], "b": [3.0, 3.0, 3.0, 3.0]}).splitlines()
    assert lines[-1].split() == ["b", "3000.00", "3000.00", "3000.00", "3.000", "0.600"]


def test_projection_alone_is_lca_of_single_positions():
    lca = LCA(4, 6, kernel_sizes=[(1, 1)])
    projection = Projection(lca)
    projection.convolution.weight.data = lca.weight.data[:, :, None, None]
    projection.convolution.bias.data = lca.bias.data
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(projection(x), lca(x))


@pytest.mark.parametrize("option", ["--backbone nonsense", "--rounds 0"])
def test_option_that_cannot_be_used_is_named(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main(option.split())
    assert ended.value.code == 2
    assert option.split()[1] in capsys.readouterr().err
