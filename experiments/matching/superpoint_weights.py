"""Where SuperPoint's weights are: in a file, a folder or on the Hugging Face hub."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.networks.weights import WeightsError, WeightsNotGivenError, read_weights

_HUB_FILE = "model.safetensors"
_HUB_ID = re.compile(r"[\w-]+[\w.-]*/[\w.-]+")
_COUNTER = "num_batches_tracked"  # of training; some files have it, no result depends on it

# What the hub did not give in this process and why: a study has many cells, and each would wait
# for the same silence.
_unfetched: dict[str, str] = {}

HOW_TO_GIVE_WEIGHTS = (
    "give --weights superpoint=FILE, one of: superpoint_v6_from_tf.pth of "
    "github.com/rpautrat/SuperPoint (MIT licence); superpoint_v1.pth of "
    "github.com/magicleap/SuperPointPretrainedNetwork (non-commercial research only); the same as "
    f"a folder with {_HUB_FILE}, or the hub's magic-leap-community/superpoint"
)


def find_weights(weights: Path | None) -> Path:
    """Return the file of SuperPoint weights that `weights` stands for.

    Args:
        weights: a file, a folder with model.safetensors as transformers saves it, or an owner/name
            on the Hugging Face hub, taken from the hub's cache where it is there.

    Raises:
        WeightsNotGivenError: `weights` is None; the message says what to fetch.
        WeightsError: there is no such file, or the hub has none or cannot be reached.
    """
    if weights is None:
        raise WeightsNotGivenError(f"superpoint has no weights: {HOW_TO_GIVE_WEIGHTS}")
    if weights.is_file():
        return weights
    if (weights / _HUB_FILE).is_file():
        return weights / _HUB_FILE
    if weights.is_dir() or weights.suffix or not _HUB_ID.fullmatch(weights.as_posix()):
        raise WeightsError(
            f"{weights} is neither a file nor a folder with {_HUB_FILE}; {HOW_TO_GIVE_WEIGHTS}"
        )
    return _fetch(weights.as_posix())


def read_state(file: Path, expected: Collection[str]) -> dict[str, Tensor]:
    """Return the state dict in `file`, written by torch.save or as safetensors; runs no code of it.

    Args:
        file: file of the weights.
        expected: names that the file's tensors may have.

    Raises:
        WeightsError: the file cannot be read, or holds something else.
    """
    state = read_weights(file, expected)
    return {key: value for key, value in state.items() if not key.endswith(_COUNTER)}


def import_transformers() -> Any:
    """Return the optional package transformers.

    Raises:
        WeightsError: it cannot be imported; the message says how to install it.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise WeightsError(
            "superpoint needs the package transformers, which cannot be imported "
            f"({error}): pip install 'transformers>=4.45'"
        ) from error


def _fetch(hub_id: str) -> Path:
    import_transformers()  # and with it huggingface_hub
    hub = importlib.import_module("huggingface_hub")
    if hub_id not in _unfetched:
        try:
            return Path(hub.hf_hub_download(hub_id, _HUB_FILE))
        except (OSError, ValueError) as error:
            _unfetched[hub_id] = str(error)
    raise WeightsError(
        f"there is no file or folder {hub_id}, and {_HUB_FILE} of {hub_id} could not be fetched "
        f"from the Hugging Face hub ({_unfetched[hub_id]}); {HOW_TO_GIVE_WEIGHTS}"
    )
