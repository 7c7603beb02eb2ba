from __future__ import annotations

import hashlib

import pytest

from experiments import checksum
from experiments.checksum import sha256


@pytest.mark.parametrize("size", [0, 1, 4, 9])
def test_it_is_the_sha256_of_the_whole_file(tmp_path, monkeypatch, size):
    monkeypatch.setattr(checksum, "_CHUNK", 4)
    content = bytes(range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
