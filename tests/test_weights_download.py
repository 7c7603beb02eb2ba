"""Weights fetched over HTTP, from a server on this machine."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from experiments.backbones import BACKBONES, Backbone, WeightsError, load_feature_map, small_resnet
from tests.products import write_weights


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder whose files the server hands out; torch's cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def backbone(name: str) -> None:
            url = f"http://127.0.0.1:{server.server_port}/{name}"
            monkeypatch.setitem(BACKBONES, "served", Backbone(small_resnet, weights_url=url))

        yield folder, backbone
        server.shutdown()
        thread.join()


def test_weights_are_fetched_once_and_checked_by_the_hash_in_their_name(served, tmp_path):
    folder, backbone = served
    weights = write_weights(tmp_path / "weights.pt")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    weights.rename(folder / f"net-{digest}.pth")
    backbone(f"net-{digest}.pth")
    first = load_feature_map("served", None)
    (folder / f"net-{digest}.pth").unlink()
    second = load_feature_map("served", None)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])


def test_weights_with_another_hash_are_refused_and_not_kept(served, tmp_path):
    folder, backbone = served
    write_weights(folder / "net-00000000.pth")
    backbone("net-00000000.pth")
    with pytest.raises(WeightsError, match="invalid hash"):
        load_feature_map("served", None)
    assert not list((tmp_path / "torch").rglob("*.pth"))


def test_weights_that_are_not_there_are_explained(served):
    _, backbone = served
    backbone("net-00000000.pth")
    with pytest.raises(WeightsError, match=r"could not be fetched.*404.*--weights"):
        load_feature_map("served", None)
