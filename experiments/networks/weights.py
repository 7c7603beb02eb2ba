"""Pretrained weights: from a file that was given, from torch's cache, or fetched once."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from experiments.checksum import sha256
from experiments.download import DownloadError, fetch
from experiments.networks.wrapped import unwrap
from experiments.storage import CheckpointError, load_checkpoint
from lca_fused.pretrained import difference_of

logger = logging.getLogger(__name__)

# What could not be fetched in this process and why, by URL: a study has many cells, and each would
# wait for the same silence.
_failed: dict[str, str] = {}


class WeightsError(ValueError):
    """Pretrained weights are missing or of another network; the message says what to do."""


class WeightsNotGivenError(WeightsError):
    """The weights are the user's to give, and were not; or they could not be fetched."""


def read_weights(file: Path, expected: Collection[str]) -> dict[str, Tensor]:
    """Read a state dict that was given as a file; runs no code from it.

    Args:
        file: file written by torch.save, a state dict or what trainers put around one (see
            `unwrap`), or as safetensors.
        expected: names of the network's tensors.

    Raises:
        WeightsError: there is no such file, or it is no state dict.
    """
    _check_exists(file)
    try:
        safetensors = file.suffix == ".safetensors"
        state = _read_safetensors(file) if safetensors else load_checkpoint(file)
    except CheckpointError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"{file} holds a {type(state).__name__}; expected a state dict, as "
            "torch.save(network.state_dict(), FILE) writes it"
        )
    state = unwrap(state, expected, str(file))
    no_tensors = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if no_tensors:
        raise WeightsError(
            f"{file} does not hold weights: {', '.join(map(str, no_tensors[:5]))} are no tensors; "
            "expected a state dict, or a dictionary with one in it"
        )
    return state


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} cannot be read as safetensors ({error})") from error


def fetch_weights(name: str, url: str) -> dict[str, Tensor]:
    """Read a state dict from torch's cache, fetched into it from `url` if it is not there.

    The file's sha256 must begin with the digits in its name, as in "resnet50-0676ba61.pth", also
    where something else put it into the cache. A file that cannot be fetched is asked for once in
    the life of this process.

    Args:
        name: name of the network, for messages and for `--weights NAME=FILE`.
        url: address of the file.

    Raises:
        WeightsNotGivenError: the file could not be fetched.
        WeightsError: the file in the cache is another one, or cannot be read.
    """
    file = cached_file(url)
    if not file.exists():
        _fetch(name, url, file)
    try:
        _check_digits(url, file)
        return load_checkpoint(file)
    except (CheckpointError, OSError) as error:
        raise WeightsError(
            f"{file}, fetched from {url}, cannot be read; delete it, it is then fetched again"
        ) from error


def cached_file(url: str) -> Path:
    """Return where torch keeps the file of `url`, fetched or not."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name)


def fingerprint(weights: Path) -> str:
    """Return what identifies a weights file: the start of its sha256."""
    _check_exists(weights)
    return sha256(weights)[:16]


def load_strictly(
    model: nn.Module,
    state: dict[str, Tensor],
    name: str,
    source: str,
    unused: Collection[str] = (),
) -> None:
    """Load `state` into `model`; every parameter must be there, in its shape, and no other.

    BatchNorm's `num_batches_tracked` may be missing: older files have none, and nothing here
    depends on it.

    Args:
        model: the network that the weights are loaded into.
        state: state dict to load.
        name: name of the network, for the error message.
        source: where the state dict is from, for the error message.
        unused: names of parameters that nothing depends on, as those of a classifier that is
            replaced: they may be missing or of another shape, which is logged.

    Raises:
        WeightsError: the keys that do not fit are named.
    """
    expected = model.state_dict()
    counters = {key: expected[key] for key in expected if key.endswith("num_batches_tracked")}
    state = counters | state
    state |= {key: expected[key] for key in _log_unused(state, expected, unused, source)}
    difference = difference_of(state, expected)
    if difference:
        raise WeightsError(
            f"{source} does not hold weights of {name}: {difference}; give the file that belongs "
            "to the backbone, or another --backbone"
        )
    model.load_state_dict(state)


def _log_unused(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    unused: Collection[str],
    source: str,
) -> list[str]:
    """Return which of the parameters that nothing depends on do not fit."""
    other = {
        key: f"{key} {tuple(state[key].shape) if key in state else 'is missing'}"
        for key in unused
        if key not in state or state[key].shape != expected[key].shape
    }
    if other:
        logger.info(
            "%s: %s; not needed, as a new classifier takes its place",
            source,
            ", ".join(f"{told} for {tuple(expected[key].shape)}" for key, told in other.items()),
        )
    return list(other)


def given_as(name: str) -> str:
    """Return how a user gives the weights of a network that were not fetched."""
    return f"--weights FILE, or --weights {name}=FILE where run_all.py has several networks"


def _check_exists(weights: Path) -> None:
    if not weights.is_file():
        raise WeightsError(f"there is no weights file {weights}; give its path with --weights")


def _check_digits(url: str, file: Path) -> None:
    digits = _digits_in_name(file)
    found = sha256(file)
    if not found.startswith(digits):
        raise WeightsError(
            f"{file} has the sha256 {found}; expected one that begins with {digits}, as the file "
            f"of {url} does; delete it, it is then fetched again"
        )


def _digits_in_name(file: Path) -> str:
    found = re.search(r"-([0-9a-f]{8,})\.", file.name)
    return found[1] if found else ""


def _fetch(name: str, url: str, file: Path) -> None:
    if url not in _failed:
        try:
            fetch(url, file, _digits_in_name(file))
            return
        except DownloadError as error:
            _failed[url] = str(error)
    raise WeightsNotGivenError(
        f"the weights of {name} could not be fetched ({_failed[url]}); download that file "
        f"elsewhere and give its path: {given_as(name)}"
    )
