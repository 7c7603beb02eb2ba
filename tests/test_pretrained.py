"""Classifiers as folders, and on a stand-in of the Hugging Face Hub."""

from __future__ import annotations

import base64
import io
import json
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lca_fused import LCA, attach_head, attach_lca, load_classifier
from lca_fused.backbones import find_backbone
from lca_fused.gallery import Gallery
from lca_fused.heads import HEADS
from lca_fused.preprocessing import Preprocessing
from lca_fused.pretrained import PretrainedError

CLASSES = ["cola", "tea", "water"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def described(head: str = "lca"):
    classifier = attach_head(timm.create_model("test_resnet"), head, len(CLASSES))
    classifier.describe(CLASSES, accuracy={"test": 0.75, "photos": 8}, training={"epochs": 2})
    return classifier


@pytest.fixture
def folder(tmp_path):
    described().save_pretrained(tmp_path)
    return tmp_path


def torch_saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def torch_loaded(data: bytes) -> object:
    return torch.load(io.BytesIO(data), weights_only=False)


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def refused_in_one_line(source: Path | str, message: str) -> None:
    with pytest.raises(PretrainedError, match=message) as error:
        load_classifier(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("head", HEADS)
def test_a_folder_gives_the_classifier_back(tmp_path, head):
    classifier = described(head).eval()
    classifier.save_pretrained(tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(loaded(images), classifier(images))
    assert loaded.description == classifier.description
    assert not loaded.training


def test_an_lca_head_keeps_its_arguments(tmp_path):
    network = torchvision.models.squeezenet1_1()
    classifier = attach_lca(
        network, 3, out_features=20, bias=False, kernel_sizes=[(2, 2), (1, 3)], dropout=0.25
    )
    classifier.describe(CLASSES, backbone="torchvision:squeezenet1_1")
    classifier.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert isinstance(loaded.pool, LCA)
    assert repr(loaded.pool) == repr(classifier.pool)
    assert loaded.dropout.p == 0.25


def test_a_timm_model_keeps_what_it_was_built_with(tmp_path):
    classifier = attach_lca(timm.create_model("test_vit", img_size=96), 3).eval()
    classifier.describe(CLASSES)
    classifier.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.description.preprocessing.image_size == 96
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(loaded(images), classifier(images))


@pytest.mark.parametrize("name", ["embedded", "mobilenet-v2-tf", "torchvision:squeezenet1_1"])
def test_a_backbone_of_another_source_comes_back(tmp_path, name):
    backbone = find_backbone(name)
    classifier = attach_lca(backbone.build(), len(CLASSES)).eval()
    classifier.describe(CLASSES, backbone=backbone)
    classifier.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert loaded.description == classifier.description
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(images), classifier(images))


def test_a_compiled_classifier_is_stored_under_plain_names(tmp_path):
    classifier = described()
    torch.compile(classifier).save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() == classifier.state_dict().keys()


def test_the_description_says_where_everything_is_from(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["backbone"] == {"name": "timm:test_resnet.r160_in1k", "arguments": {}}
    assert config["head"]["name"] == "lca"
    assert config["classes"] == CLASSES
    assert config["preprocessing"]["image_size"] == 160
    assert config["licence"] == "apache-2.0"
    assert config["accuracy"] == {"test": 0.75, "photos": 8}
    assert {"python", "torch", "timm", "lca-fused"} <= set(config["versions"])


def test_loading_a_folder_needs_no_network(folder, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", pytest.fail)
    monkeypatch.setattr(socket, "getaddrinfo", pytest.fail)
    load_classifier(folder)


def test_loading_and_storing_leave_the_callers_random_numbers_alone(folder):
    state = torch.get_rng_state()
    load_classifier(folder).save_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
def test_only_torch_is_imported_until_a_stored_classifier_is_wanted():
    program = (
        "import sys, lca_fused; "
        "print(sorted({'timm', 'torchvision', 'safetensors', 'PIL'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("write", "read"), [(pickle.dumps, pickle.loads), (torch_saved, torch_loaded)]
)
def test_a_pickle_is_not_read(folder, tmp_path, write, read):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    weights = folder / "model.safetensors"
    weights.write_bytes(write(Malicious()))
    refused_in_one_line(folder, r"damaged, or no safetensors file")
    assert not (tmp_path / "ran").exists()
    read(weights.read_bytes())
    assert (tmp_path / "ran").exists(), "it is live: unpickling would have run it"


def test_weights_of_another_kind_beside_the_description_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused_in_one_line(folder, "they may be pickles")


@pytest.mark.parametrize("size", [0, 4, 1000, -4])
def test_a_truncated_file_is_refused(folder, size):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    refused_in_one_line(folder, "damaged")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": {"name": "gap"}}, r"2 unexpected \(lca\.(bias|weight), lca"),
        ({"head": {"name": "attention"}}, "expected one of gap, gap-fc, gem, rmac, lca"),
        ({"head": {"name": "lca", "colour": 1}}, "its head lca has arguments"),
        ({"head": {"name": "lca", "kernel_sizes": [["a"]]}}, "kernel_sizes"),
        ({"backbone": {"name": "timm:nothing"}}, "has no 'nothing'"),
        ({"backbone": {"name": "timm:test_vit"}}, "missing"),
        (
            {"backbone": {"name": "timm:test_resnet", "arguments": {"checkpoint_path": "x"}}},
            "checkpoint_path",
        ),
        ({"classes": ["one"]}, "of another shape"),
        ({"classes": []}, "classes are"),
        ({"classes": [1, 2, 3]}, "classes are"),
        ({"format": 2}, "its format is 2; expected 1"),
        ({"dropout": "much"}, "config.json"),
        ({"preprocessing": {"image_size": -1}}, "image_size is -1"),
        ({"preprocessing": {"colour": 1}}, "colour"),
        ({"preprocessing": None}, "expected a dict"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(folder, values, message):
    change(folder, **values)
    refused_in_one_line(folder, message)


@pytest.mark.parametrize("name", ["format", "backbone", "head", "classes", "preprocessing"])
def test_a_description_that_lacks_something_is_refused_in_one_line(folder, name):
    config = json.loads((folder / "config.json").read_text())
    del config[name]
    (folder / "config.json").write_text(json.dumps(config))
    refused_in_one_line(folder, f"its {name} is None; expected")


def renamed(state: dict[str, Tensor]) -> None:
    state["extra"] = state.pop("classifier.bias")


def shortened(state: dict[str, Tensor]) -> None:
    state["classifier.weight"] = state["classifier.weight"][:2]


@pytest.mark.parametrize(
    ("change_state", "message"),
    [
        (renamed, r"1 missing \(classifier\.bias\); 1 unexpected \(extra\)"),
        (shortened, r"1 of another shape \(classifier\.weight \(2, \d+\) instead of \(3, \d+\)\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, change_state, message):
    state = load_file(folder / "model.safetensors")
    change_state(state)
    save_file(state, folder / "model.safetensors")
    refused_in_one_line(folder, message)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_description_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    refused_in_one_line(folder, r"config.json cannot be used")


@pytest.mark.parametrize("name", [".", "nowhere", "lca-seed0.model.pt"])
def test_a_folder_without_a_description_is_refused(tmp_path, name):
    (tmp_path / "lca-seed0.model.pt").touch()
    with pytest.raises(PretrainedError, match=r"expected a folder with config.json") as error:
        load_classifier(tmp_path / name)
    assert str(tmp_path / name / "config.json") in str(error.value)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    classifier = described()
    nn.init.constant_(classifier.pool.weight, float("nan"))
    classifier.save_pretrained(tmp_path)
    refused_in_one_line(tmp_path, r"not finite in lca.weight")


def test_a_classifier_without_a_description_is_not_written(tmp_path):
    classifier = attach_lca(timm.create_model("test_resnet"), 3)
    with pytest.raises(ValueError, match=r"call classifier.describe\(CLASSES"):
        classifier.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_classifier_that_is_not_as_described_is_not_written(folder):
    before = (folder / "config.json").read_text()
    classifier = described()
    classifier.description = replace(classifier.description, backbone="timm:test_vit")
    with pytest.raises(ValueError, match="not the one its description builds"):
        classifier.save_pretrained(folder)
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": CLASSES[:2]}, "2 classes are named; expected the 3"),
        ({"classes": CLASSES}, "name it"),
    ],
)
def test_a_description_asks_for_what_it_lacks(arguments, message):
    classifier = attach_lca(torchvision.models.squeezenet1_1(), 3)
    with pytest.raises(ValueError, match=message):
        classifier.describe(**arguments)


def test_a_head_that_cannot_be_built_again_is_not_described():
    class Own(LCA):
        pass

    classifier = attach_head(timm.create_model("test_resnet"), Own, 3)
    with pytest.raises(ValueError, match="the head is a Own"):
        classifier.describe(CLASSES)


def test_other_preprocessing_is_kept(tmp_path):
    classifier = attach_lca(timm.create_model("test_resnet"), 3)
    own = Preprocessing(image_size=64, crop=1.0, keep_ratio=False, mean=(0.1, 0.2, 0.3))
    classifier.describe(CLASSES, preprocessing=own)
    classifier.save_pretrained(tmp_path)
    assert load_classifier(tmp_path).description.preprocessing == own


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload and a download of small files need."""

    repositories: dict[str, dict[str, bytes]]

    def log_message(self, *_):
        pass

    def answer(self, value: object = None, status: int = 200) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def file(self, send: bool) -> None:
        repository, _, name = self.path.partition("/resolve/main/")
        content = self.repositories.get(repository.strip("/"), {}).get(name)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{len(content)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if send:
            self.wfile.write(content)

    def do_HEAD(self):
        self.file(send=False)

    def do_GET(self):
        self.file(send=True)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            given = json.loads(body)
            owner = given.get("organization") or "owner"
            self.repositories.setdefault(f"{owner}/{given['name']}", {})
            self.answer({"url": f"/{owner}/{given['name']}"})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            self.commit([json.loads(line) for line in body.splitlines()])
        else:  # the model card's head, to be checked
            self.answer({"errors": [], "warnings": []})

    def commit(self, lines: list[dict]) -> None:
        repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        for line in lines:
            if line["key"] == "file":
                value = line["value"]
                content = base64.b64decode(value["content"])
                self.repositories[repository][value["path"]] = content
        address = f"http://{self.headers['Host']}/{repository}/commit/{'0' * 40}"
        self.answer({"commitUrl": address, "commitOid": "0" * 40, "success": True})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Run the stand-in on this machine and have huggingface_hub talk to it; its repositories."""
    repositories: dict[str, dict[str, bytes]] = {}
    handler = type("OwnHub", (Hub,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield repositories
        server.shutdown()


def test_a_classifier_goes_to_the_hub_and_back(hub):
    classifier = described().eval()
    address = classifier.push_to_hub("owner/shelf", token="hf_stand_in")
    assert address.endswith("0" * 40)
    assert set(hub["owner/shelf"]) == {"README.md", "config.json", "model.safetensors"}
    assert b"license: apache-2.0" in hub["owner/shelf"]["README.md"]
    loaded = load_classifier("hf-hub:owner/shelf")
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(loaded(images), classifier(images))


def test_a_gallery_goes_to_the_hub_and_back_with_its_vectors(hub):
    classifier = described()
    vectors = torch.randn(4, classifier.head_hidden_size)
    classifier.set_gallery(Gallery(vectors, torch.tensor([0, 1, 1, 2]), CLASSES))
    classifier.push_to_hub("owner/gallery", token="hf_stand_in")
    loaded = load_classifier("hf-hub:owner/gallery").classifier
    assert torch.equal(loaded.embeddings, classifier.classifier.embeddings)


def test_a_repository_that_is_not_there_is_refused_in_one_line(hub):
    refused_in_one_line("hf-hub:owner/nothing", "hf-hub:owner/nothing cannot be fetched")
    described().push_to_hub("owner/shelf", token="hf_stand_in")
    refused_in_one_line("hf-hub:owner/shelf@v2", "hf-hub:owner/shelf@v2 cannot be fetched")
    hub["owner/shelf"]["config.json"] = b"{"
    refused_in_one_line("hf-hub:owner/shelf", r"^\S+config.json cannot be used")


def test_a_hub_that_cannot_be_reached_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused_in_one_line("hf-hub:owner/shelf", "hf-hub:owner/shelf cannot be fetched")
    with pytest.raises(PretrainedError, match="owner/shelf cannot be uploaded") as error:
        described().push_to_hub("owner/shelf", token="hf_stand_in")
    assert "\n" not in str(error.value)


def test_a_part_that_is_compiled_is_stored_under_plain_names(tmp_path):
    classifier = described().eval()
    classifier.backbone = torch.compile(classifier.backbone, backend="eager")
    classifier.save_pretrained(tmp_path)
    images = torch.randn(1, 3, 96, 96)
    assert torch.equal(load_classifier(tmp_path)(images), classifier(images))
