"""The notebooks, cell by cell in a kernel, on photos and rows that are here."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.products import write_photos, write_weights

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(name: str, **parameters: object) -> str:
    """Run a notebook in its folder with other parameters; return the text that it prints."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    resources = {"metadata": {"path": ROOT / "notebooks"}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    return "".join(o.get("text", "") or o.get("data", {}).get("text/markdown", "") for o in outputs)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_valid_and_holds_no_output(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].source.startswith('REPOSITORY = ""')
    assert [cell for cell in code if cell.outputs or cell.execution_count] == []


@pytest.mark.slow
def test_my_photos_in_ten_minutes(tmp_path):
    weights = write_weights(tmp_path / "weights.pt")
    fast = ["--recipe.epochs", "2", "--recipe.image-size", "32", "--recipe.batch-size", "6"]
    fast += ["--workers", "0", "--precision", "float32", "--device", "cpu"]
    printed = run(
        "my_photos_in_ten_minutes",
        PHOTOS=str(write_photos(tmp_path / "photos")),
        OUTPUT=str(tmp_path / "output"),
        OPTIONS=["--backbone", "embedded", "--weights", str(weights), *fast],
    )
    assert "of 12 test photos recognised" in printed
    assert "model.onnx: max logit difference" in printed
    assert len(list((tmp_path / "output" / "explained").rglob("*.png"))) == 3


@pytest.mark.slow
def test_fill_gpu_rows(tmp_path):
    """Without a GPU too it goes to its end; the rows are those of another machine."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    shutil.copy(ROOT / "benchmarks/results/gpu_h200.json", folder / "acceptance.json")
    printed = run("fill_gpu_rows", FOLDER=str(folder), STEPS=["rates"])
    assert "rates: " in printed
    assert "| **LCA**" in printed
    assert (tmp_path / "gpu.zip").exists()
