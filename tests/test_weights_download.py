"""Weights fetched over HTTP, from a server on this machine."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.download import DownloadError
from experiments.networks import backbones, weights
from experiments.networks.backbones import load_feature_map
from experiments.networks.weights import WeightsError, WeightsNotGivenError
from lca_fused import backbones as known_backbones
from lca_fused.backbones import find_backbone, small_resnet
from tests.file_server import serving
from tests.products import write_weights


def with_digest(path: Path) -> Path:
    """Rename a file to NAME-<start of its sha256>.pth, as torch's server names them."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return path.rename(path.with_name(f"{path.stem}-{digest}.pth"))


@pytest.fixture
def fetched_from(tmp_path, monkeypatch) -> Callable[[str], None]:
    """Make "served" a backbone whose weights are at a URL; torch's cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights, "_failed", {})

    def backbone(url: str) -> None:
        monkeypatch.setitem(known_backbones._LONGER_NAMES, "served", "lca_fused:small_resnet")
        monkeypatch.setattr(backbones, "weights_url", lambda _: url)

    return backbone


@pytest.fixture
def served(tmp_path, fetched_from) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder whose files the server hands out."""
    folder = tmp_path / "served"
    folder.mkdir()
    with serving(folder) as address:
        yield folder, lambda name: fetched_from(f"{address}/{name}")


def test_weights_are_fetched_once_and_checked_by_the_hash_in_their_name(served, tmp_path):
    folder, backbone = served
    file = with_digest(write_weights(folder / "net.pth"))
    backbone(file.name)
    first = load_feature_map("served", None)
    file.unlink()
    second = load_feature_map("served", None)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])


def test_weights_saved_as_the_wsl_file_is_are_read(served):
    """torch.save of an OrderedDict in the format before zip, without BatchNorm's counters."""
    folder, backbone = served
    torch.manual_seed(1)
    network = small_resnet().eval()
    state = network.state_dict()
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
    torch.save(state, folder / "ig.pth", _use_new_zipfile_serialization=False)
    backbone(with_digest(folder / "ig.pth").name)
    images = torch.randn(2, 3, 32, 32)
    loaded = load_feature_map("served", None).eval()
    torch.testing.assert_close(loaded(images), network(images))


def test_the_licence_is_logged_once(monkeypatch, caplog, tmp_path):
    own = "no commerce, says this test alone"
    licensed = replace(find_backbone("embedded"), licence=own)
    monkeypatch.setattr(backbones, "find_backbone", lambda _: licensed)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        load_feature_map("embedded", write_weights(tmp_path / "net.pt"))
    assert caplog.text.count(own) == 1


def test_weights_with_another_hash_are_refused_and_not_kept(served, tmp_path):
    folder, backbone = served
    write_weights(folder / "net-00000000.pth")
    backbone("net-00000000.pth")
    with pytest.raises(WeightsError, match="expected one that begins with 00000000"):
        load_feature_map("served", None)
    assert not list((tmp_path / "torch").rglob("*.*"))


def test_what_cannot_be_fetched_is_asked_for_once(fetched_from, monkeypatch):
    asked = []

    def refuse(url, *_):
        asked.append(url)
        raise DownloadError(f"{url}: no route to host")

    monkeypatch.setattr(weights, "fetch", refuse)
    urls = [f"http://weights.invalid/{name}.pth" for name in "aba"]
    for url in urls:
        fetched_from(url)
        with pytest.raises(WeightsNotGivenError, match=r"no route.*--weights FILE, or"):
            load_feature_map("served", None)
    assert asked == urls[:2]


def half_a_file(file: Path) -> None:
    file.write_bytes(b"half a file")


@pytest.mark.parametrize(
    ("name", "put", "said"),
    [
        ("net-00000000.pth", write_weights, "{file} has the sha256 {sha256}; expected one that"),
        ("net.pth", half_a_file, "{file}, fetched from {url}, cannot be read; delete it"),
        ("net.pth", Path.mkdir, "{file}, fetched from {url}, cannot be read"),
        ("net-00000000.pth", Path.mkdir, "{file}, fetched from {url}, cannot be read"),
    ],
)
def test_what_is_in_the_cache_and_is_no_such_weights_is_named(fetched_from, name, put, said):
    url = f"http://weights.invalid/{name}"
    fetched_from(url)
    file = weights.cached_file(url)
    file.parent.mkdir(parents=True)
    put(file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
    with pytest.raises(WeightsError) as caught:
        load_feature_map("served", None)
    assert said.format(file=file, sha256=sha256, url=url) in str(caught.value)
    assert not isinstance(caught.value, WeightsNotGivenError)
    assert file.exists()


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list; expected a state dict"):
        load_feature_map("embedded", tmp_path / "list.pt")
