from __future__ import annotations

import hashlib

from experiments.checksum import content_digest, sha256


def test_a_file_that_changes_has_another_digest(tmp_path):
    file = tmp_path / "file"
    digests = []
    for content in (b"", b"one", b"three"):
        file.write_bytes(content)
        assert sha256(file) == hashlib.sha256(content).hexdigest()
        digests.append(content_digest(file))
    assert len(set(digests)) == 3
