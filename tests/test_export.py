"""`export.py` from end to end: what it writes says what the model says, or is not written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from experiments.deploy.export_formats import FORMATS, Format
from experiments.deploy.export_manifest import describe
from experiments.deploy.inference import PhotoReader, find_photos
from experiments.export import Agreement, _check, compare, main
from lca_fused import load_classifier
from lca_fused.photos.reading import read_image
from lca_fused.preprocessing import Preprocessing
from tests.products import COLOURS, write_photos
from tests.stored_models import SIDE, write_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
safetensors_torch = pytest.importorskip("safetensors.torch")

from experiments.deploy.onnx_export import OnnxClassifier, OnnxError, _check_operators  # noqa: E402

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "lca-seed0.model")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), train=1, test=6) / "test"


@pytest.fixture(scope="module")
def exported(model, photos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("exports") / "shipped"
    assert main([str(model), "--output", str(output), "--photos", str(photos)]) == 0
    return output


def manifest(folder: Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def test_writes_every_format_and_nothing_else(exported):
    names = {path.name for path in exported.iterdir()}
    assert names == {"model.onnx", "model.pt2", "model.safetensors", "model.json"}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_onnx_gives_the_models_logits_for_any_number_of_photos(model, exported, count):
    images = torch.randn(count, 3, SIDE, SIDE)
    expected = load_classifier(model)(images).detach()
    given = OnnxClassifier(exported / "model.onnx", threads=1)(images)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-4)
    assert expected.abs().max() > 0.1  # so that the tolerance says something


def test_onnx_is_one_file_of_standard_operators(exported):
    graph = onnx.load(exported / "model.onnx", load_external_data=False)
    assert {node.domain for node in graph.graph.node} == {""}
    assert not graph.functions
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    operators = [node.op_type for node in graph.graph.node]
    side = SIDE // 16
    assert dilations(graph, "Conv")[-side:] == list(range(1, side + 1)), "one a height"
    assert set(dilations(graph, "MaxPool")) <= {1}, "OpenCV, Core ML and TensorRT know no others"
    assert "Loop" not in operators


def dilations(graph, operator: str) -> list[int]:
    """How far apart the rows are that the operators of this type join."""
    nodes = [node for node in graph.graph.node if node.op_type == operator]
    return [a.ints[0] for node in nodes for a in node.attribute if a.name == "dilations"]


def test_made_up_operator_is_refused(exported, tmp_path):
    graph = onnx.load(exported / "model.onnx")
    node = graph.graph.node[-1]
    node.domain = "com.example"
    graph.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(graph, tmp_path / "foreign.onnx")
    with pytest.raises(OnnxError, match=f"com.example.{node.op_type}"):
        _check_operators(tmp_path / "foreign.onnx")


def test_torch_export_gives_the_models_logits(model, exported):
    images = torch.randn(3, 3, SIDE, SIDE)
    program = torch.export.load(exported / "model.pt2")
    expected = load_classifier(model)(images)
    torch.testing.assert_close(program.module()(images), expected, rtol=0, atol=1e-4)


def test_safetensors_holds_the_models_tensors(model, exported):
    tensors = safetensors_torch.load_file(exported / "model.safetensors")
    state = load_classifier(model).state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="permissions are those of the folder")
def test_files_have_the_permissions_of_any_new_file(model, tmp_path):
    before = os.umask(0o027)
    try:
        assert main([str(model), "--output", str(tmp_path / "out")]) == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == dict.fromkeys(
        ["model.onnx", "model.pt2", "model.safetensors", "model.json"], 0o640
    )


def test_manifest_describes_the_files(exported):
    description = manifest(exported)
    assert description["classes"] == sorted(COLOURS)
    assert description["input"]["shape"] == ["batch", 3, SIDE, SIDE]
    assert torch.__version__.startswith(description["versions"]["torch"])
    assert description["model"]["backbone"]["name"] == "embedded"
    assert set(description["files"]) == set(FORMATS)
    for entry in description["files"].values():
        data = (exported / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
        assert entry["agreement"]["photos"] == 18
        assert entry["agreement"]["max_logit_difference"] <= 1e-4
        assert entry["agreement"]["other_class"] == 0


def test_manifest_of_classes_that_are_no_text_is_read_by_strict_readers(model):
    loaded = load_classifier(model)
    loaded.describe(["caf\udce9", "lime", "plum"], backbone="embedded")
    (first, *_) = describe(loaded, {}, {})["classes"]
    assert first == "caf\\udce9"
    first.encode()  # no half of a surrogate pair, which many readers of JSON refuse


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((300, 400)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def follow(steps: dict, photo: Path) -> torch.Tensor:
    """Do with a photo what a manifest says."""
    image = read_image(photo)
    side = steps["shrink_shorter_side_to_at_most"]
    scale = side / min(image.size)
    assert scale < 1
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
    )
    size = steps["resize"] if "resize" in steps else [steps["resize_shorter_side"]]
    interpolation = v2.InterpolationMode(steps["interpolation"])
    x = v2.functional.pil_to_tensor(image)
    x = v2.functional.resize(x, size, interpolation, antialias=steps["antialias"])
    x = v2.functional.center_crop(x, [steps["center_crop"]]) * steps["scale"]
    return (x - torch.tensor(steps["mean"])[:, None, None]) / torch.tensor(steps["std"])[
        :, None, None
    ]


def test_manifest_preprocessing_makes_the_networks_input(model, exported, photo):
    x = follow(manifest(exported)["preprocessing"], photo)
    (item,) = PhotoReader([photo], load_classifier(model).description.preprocessing, 10**8)
    torch.testing.assert_close(x, item[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(image_size=48, interpolation="bicubic", crop=0.9, mean=(0.5, 0.4, 0.3)),
        Preprocessing(image_size=48, keep_ratio=False, crop=1.0, std=(0.5, 0.4, 0.3)),
        Preprocessing(image_size=112, crop=112 / 116),
    ],
    ids=["bicubic", "squashed", "floored"],
)
def test_manifest_tells_other_preprocessing_too(model, photo, preprocessing):
    classifier = load_classifier(model)
    classifier.describe(sorted(COLOURS), backbone="embedded", preprocessing=preprocessing)
    written = json.loads(json.dumps(describe(classifier, {}, {})))
    side = preprocessing.image_size
    assert written["input"]["shape"] == ["batch", 3, side, side]
    (item,) = PhotoReader([photo], preprocessing, 10**8)
    torch.testing.assert_close(follow(written["preprocessing"], photo), item[1], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gap", "gap-fc", "gem", "rmac"])
def test_every_head_can_be_exported(tmp_path, method, caplog):
    stored = write_model(tmp_path / f"{method}.model", method)
    arguments = [str(stored), "--output", str(tmp_path / "out"), "--formats", "onnx"]
    assert main(arguments) == 0, caplog.text
    assert [path.name for path in (tmp_path / "out").glob("model.o*")] == ["model.onnx"]


def test_tries_on_noise_without_photos(model, tmp_path, caplog):
    output = tmp_path / "out"
    caplog.set_level("INFO")
    assert main([str(model), "--output", str(output), "--formats", "safetensors"]) == 0
    assert "noise" in caplog.text
    assert "top-1 identical on 8 of 8 photos" in caplog.text
    assert {path.name for path in output.iterdir()} == {"model.safetensors", "model.json"}


def spoilt(difference: float) -> Format:
    """The format safetensors, whose file says something else than the model."""
    sound = FORMATS["safetensors"]

    def read(classifier, path):
        classify = sound.read(classifier, path)
        return lambda images: classify(images) + difference

    return Format(sound.file, sound.write, read)


def test_file_that_differs_is_refused_and_leaves_nothing(model, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(FORMATS, "safetensors", spoilt(2e-4))
    output = tmp_path / "out"
    assert main([str(model), "--output", str(output), "--formats", "safetensors"]) == 1
    assert "model.safetensors is refused: max logit difference 0.0002" in caplog.text
    assert "--tolerance" in caplog.text
    assert not output.exists()
    arguments = [str(model), "--output", str(output), "--formats", "safetensors"]
    assert main([*arguments, "--tolerance", "1e-3"]) == 0


def test_refused_export_keeps_the_earlier_one(model, tmp_path, monkeypatch):
    arguments = [str(model), "--output", str(tmp_path), "--formats", "safetensors"]
    assert main(arguments) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setitem(FORMATS, "safetensors", spoilt(float("nan")))
    assert main(arguments) == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_files_of_other_formats_are_not_left_beside_another_model(model, tmp_path, caplog):
    """The second model's model.json would not say that model.safetensors is of the first."""
    output = tmp_path / "shipped"
    arguments = ["--output", str(output), "--formats"]
    assert main([str(model), *arguments, "safetensors", "torch-export"]) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    other = write_model(tmp_path / "gap.model", "gap")
    assert main([str(other), *arguments, "torch-export"]) == 2
    assert f"{output} holds model.safetensors of an earlier export" in caplog.text
    assert "torch-export safetensors" in caplog.text
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before

    assert main([str(other), *arguments, "torch-export", "safetensors"]) == 0
    assert manifest(output)["model"]["head"] == {"name": "gap"}
    assert manifest(output)["model"]["training"] == {"method": "gap"}
    assert set(manifest(output)["files"]) == {"torch-export", "safetensors"}


def test_another_class_is_refused_within_any_tolerance(model):
    loaded = load_classifier(model)
    images = [torch.randn(4, 3, SIDE, SIDE)]

    def worst_first(batch):
        return -loaded(batch).detach()

    agreement = compare(loaded, worst_first, images)
    assert agreement.other_class == agreement.photos == 4
    with pytest.raises(RuntimeError, match="0 of 4 photos"):
        _check(agreement, 1e9, "model.onnx")
    _check(Agreement(4, 1e-6, 0), 1e-4, "model.onnx")


@pytest.fixture(scope="module")
def in_int8(model, photos, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("exports") / "small"
    options = ["--formats", "int8", "--photos", str(photos), "--max-loss", "100"]
    assert main([str(model), "--output", str(output), *options]) == 0
    return output


def test_int8_keeps_rectangles_and_the_last_layer_in_float(in_int8):
    assert {path.name for path in in_int8.iterdir()} == {"model-int8.onnx", "model.json"}
    graph = onnx.load(in_int8 / "model-int8.onnx").graph
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kept = {name for name, kind in weights.items() if kind == onnx.TensorProto.FLOAT}
    assert {"lca.difference", "lca.coefficients", "classifier.weight"} & kept
    assert weights["lca.weight_quantized"] == onnx.TensorProto.INT8
    assert not [name for name in weights if name.startswith("classifier.") and "quant" in name]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    makers = {output: node.op_type for node in graph.node for output in node.output}
    in_8_bit = [makers.get(node.input[1]) == "DequantizeLinear" for node in convolutions]
    projection = len(in_8_bit) - in_8_bit[::-1].index(True)
    assert all(in_8_bit[:projection])
    assert not any(in_8_bit[projection:])
    assert len(in_8_bit) > projection, "LCA's own convolutions are behind it"


def test_int8_says_nearly_what_the_model_says_and_the_manifest_what_it_costs(
    model, photos, in_int8
):
    entry = manifest(in_int8)["files"]["int8"]
    assert entry["bytes"] == (in_int8 / entry["file"]).stat().st_size
    judged = entry["agreement"]
    assert judged["calibrated_on"] == 5
    assert judged["photos"] == judged["labelled"] == 18 - 5, "not those it was calibrated on"
    assert judged["bytes"] < 0.5 * judged["bytes_in_float32"]
    named = 100 * (judged["right_in_float32"] - judged["right"]) / judged["labelled"]
    assert judged["lost_points"] == pytest.approx(named)
    batches = PhotoReader(find_photos([photos]), Preprocessing(image_size=SIDE), 10**8)
    images = next(batches.batches(18, 0)).images
    expected = load_classifier(model)(images).detach()
    given = OnnxClassifier(in_int8 / "model-int8.onnx")(images)
    assert (given - expected).norm() < 0.1 * expected.norm()


def test_openvino_reads_int8(photos, in_int8):
    openvino = pytest.importorskip("openvino")
    batches = PhotoReader(find_photos([photos]), Preprocessing(image_size=SIDE), 10**8)
    images = next(batches.batches(18, 0)).images
    expected = OnnxClassifier(in_int8 / "model-int8.onnx")(images).numpy()
    compiled = openvino.Core().compile_model(str(in_int8 / "model-int8.onnx"), "CPU")
    given = compiled(images.numpy())[0]
    assert np.linalg.norm(given - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize(("right", "status"), [(994, 1), (995, 0), (1001, 0)])
def test_int8_that_loses_over_half_a_point_is_refused_and_leaves_nothing(
    model, photos, tmp_path, monkeypatch, caplog, right, status
):
    import experiments.deploy.int8 as int8

    judged = int8.Judged(2000, 1990, 1000, right, 1000, 1, 4, 1.0, 2.0)
    monkeypatch.setattr("experiments.export._export", lambda *_: {})
    monkeypatch.setattr(int8, "quantise", lambda *given, **_: given[-1].touch())
    monkeypatch.setattr(int8, "judge", lambda *_: judged)
    output = tmp_path / "out"
    options = ["--formats", "int8", "--photos", str(photos), "--output", str(output)]
    assert main([str(model), *options]) == status
    assert output.exists() == (status == 0)
    refusal = "0.60 points are lost, expected at most 0.5 (--max-loss)"
    assert (refusal in caplog.text) == (status == 1)


@pytest.mark.parametrize(
    ("labels", "lost"),
    [([0, 0, 0, 0], 0), ([1, 1, 0, 0], -50), ([0, None, None, 1], 50), ([None] * 4, 50)],
)
def test_what_is_lost_is_accuracy_or_else_agreement(monkeypatch, tmp_path, labels, lost):
    import experiments.deploy.int8 as int8

    answers = {"ours": torch.tensor([0, 1, 0, 0]), "theirs": torch.tensor([0, 0, 0, 1])}
    classifiers = {
        name: (lambda images, told=told: torch.eye(2)[told[: len(images)]])
        for name, told in answers.items()
    }
    monkeypatch.setattr(int8, "OnnxClassifier", lambda path: classifiers[path.name])
    for name in answers:
        (tmp_path / name).write_bytes(b"")
    images = torch.zeros(4, 3, 1, 1)
    judged = int8.judge(tmp_path / "theirs", tmp_path / "ours", images, labels, rounds=1)
    assert judged.lost == lost


def test_int8_without_photos_is_refused_before_anything_is_computed(model, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(model), "--output", str(tmp_path / "out"), "--formats", "int8"])
    assert "int8 is calibrated and judged on photos; give a" in capsys.readouterr().err


def test_unreadable_photos_are_listed_and_left_out(model, photos, tmp_path, caplog):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"")
    good = find_photos([photos])[0]
    (folder / "good.png").write_bytes(good.read_bytes())
    arguments = [str(model), "--output", str(tmp_path / "out"), "--formats", "safetensors"]
    assert main([*arguments, "--photos", str(folder)]) == 0
    assert "bad.jpg: zero bytes" in caplog.text
    entry = manifest(tmp_path / "out")["files"]["safetensors"]
    assert entry["agreement"]["photos"] == 1


def test_interrupted_it_says_so_and_leaves_nothing(model, tmp_path, monkeypatch, caplog):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.export.compare", interrupt)
    arguments = [str(model), "--output", str(tmp_path / "out"), "--formats", "safetensors"]
    assert main(arguments) == 130
    assert caplog.messages[-1] == "interrupted; nothing was written"
    assert not (tmp_path / "out").exists()


def test_photos_none_of_which_can_be_read_are_refused(model, tmp_path, caplog):
    arguments = [str(model), "--output", str(tmp_path / "out"), "--photos", str(tmp_path)]
    assert main(arguments) == 2
    assert str(tmp_path) in caplog.text
    assert not (tmp_path / "out").exists()


def test_unusable_model_is_named(tmp_path, caplog):
    assert main([str(tmp_path / "nowhere.model"), "--output", str(tmp_path / "out")]) == 2
    assert "nowhere.model" in caplog.text
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named_before_anything_is_computed(model, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("experiments.export.load_classifier", pytest.fail)
    assert main([str(model), "--output", str(tmp_path / "out")]) == 2
    assert "onnxscript cannot be imported; pip install" in caplog.text


def test_a_format_that_cannot_be_written_is_named(model, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("an operator without a translation")

    broken = replace(FORMATS["onnx"], write=fail)
    monkeypatch.setitem(FORMATS, "onnx", broken)
    assert main([str(model), "--output", str(tmp_path / "out")]) == 1
    assert "model.onnx cannot be written (RuntimeError: an operator" in caplog.messages[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("full", [False, True])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_computed(
    model, tmp_path, monkeypatch, caplog, full
):
    monkeypatch.setattr("experiments.export.export", pytest.fail)
    (tmp_path / "file").touch()
    if full:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            "experiments.outputs.shutil.disk_usage", lambda _: usage._replace(free=1)
        )
    output = tmp_path / ("out" if full else "file")
    assert main([str(model), "--output", str(output)]) == 2
    assert ("0.00 GiB free" if full else "file is a file") in caplog.messages[-1]


def test_missing_package_is_named_with_its_remedy(model, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "experiments.deploy.onnx_export", None)
    arguments = [str(model), "--output", str(tmp_path / "out"), "--formats", "onnx"]
    assert main(arguments) == 2
    assert "lca-fused[export]" in caplog.text
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_as_a_script(model, tmp_path):
    command = [sys.executable, "experiments/export.py", str(model), "--tolerance", "-1"]
    command += ["--output", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "--tolerance is -1.0" in result.stderr
