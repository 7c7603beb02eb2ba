"""A classifier as a folder, model.safetensors and config.json, here or on the Hugging Face Hub.

One with a gallery has its vectors in a file of their own, which config.json names: to change the
gallery a new one is written, and config.json is replaced, at which moment everything changes.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lca_fused.decision import Decision
from lca_fused.description import Description, described
from lca_fused.gallery import Gallery

if TYPE_CHECKING:
    from lca_fused.classifier import Classifier

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
GALLERY = "gallery"
"""Key in `CONFIG_FILE`: file of the vectors, photos, scale."""
_HUB = "hf-hub:"
_VECTORS = re.compile(r"vectors-[0-9a-f]{16}\.safetensors")
_CLASSIFIER = "classifier."  # before the names of its tensors
_TRIES = 3  # at reading a gallery that others change meanwhile
_PACKAGES = ("lca-fused", "torch", "torchvision", "timm", "safetensors")


class PretrainedError(ValueError):
    """A stored classifier cannot be used; the message, of one line, says why."""


def load_classifier(source: str | Path) -> Classifier:
    """Load a classifier that `save_pretrained` wrote; nothing is unpickled, and no code run.

    Args:
        source: a folder, or "hf-hub:owner/name" (with "@revision" if wanted) on the Hub.

    Returns:
        The classifier, on the CPU, in evaluation mode, with its description.

    Raises:
        PretrainedError: there is no such folder or repository, or it cannot be reached; a file is
            missing or damaged; its tensors are not those of the network it describes, or not
            finite.
    """
    folder = _fetch(str(source)) if str(source).startswith(_HUB) else Path(source)
    description, gallery = _read_description(folder)
    state = _read_weights(folder)
    # Building draws initial weights, which are replaced at once; the caller's generator is not to
    # notice.
    with torch.random.fork_rng(devices=[]):
        try:
            classifier = _build(description, gallery)
        except (ValueError, TypeError) as error:
            raise PretrainedError(_line(f"{folder / CONFIG_FILE}: {error}")) from error
    if gallery is not None:
        state |= {f"{_CLASSIFIER}{name}": t for name, t in gallery.state_dict().items()}
    _load(classifier, state, folder / WEIGHTS_FILE)
    return classifier.eval()


def save_pretrained(classifier: Classifier, folder: str | Path) -> None:
    """Write a classifier's weights and description; a classifier there before is replaced.

    The description is held against the network first: it must be that of a network with the same
    parameters, or the folder could not be loaded.

    Args:
        classifier: a classifier that has a description (see `describe`).
        folder: the folder that model.safetensors and config.json, and a gallery's vectors, go to;
            made if needed.

    Raises:
        ValueError: the classifier has no description, or is not what it is described as.
        OSError: the folder cannot be written to; what was in it stays.
    """
    description, gallery = described(classifier), gallery_of(classifier)
    # torch.compile puts it before the names of what it compiles.
    state = {name.replace("_orig_mod.", ""): t for name, t in classifier.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        expected = _build(description, gallery).state_dict()
    difference = difference_of(state, expected)
    if difference:
        raise ValueError(
            f"the classifier is not the one its description builds: {difference}; describe it again"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
        if gallery is None or not name.startswith(_CLASSIFIER)
    }
    _replace(folder / WEIGHTS_FILE, save(tensors, metadata={"format": "pt"}))
    save_description(classifier, folder)


def save_description(classifier: Classifier, folder: str | Path) -> None:
    """Write all of a classifier but its weights, which are there: its description and gallery.

    Whenever the process is killed, the folder holds what it held before or what it is to hold.

    Args:
        classifier: a classifier that has a description.
        folder: with its model.safetensors.

    Raises:
        ValueError: the classifier has no description.
        OSError: the folder cannot be written to; what was in it stays.
    """
    values = described(classifier).to_dict() | {"versions": installed_versions()}
    folder, gallery, file = Path(folder), gallery_of(classifier), ""
    if gallery is not None:
        file = f"vectors-{uuid.uuid4().hex[:16]}.safetensors"
        tensors = {name: t.detach().cpu().contiguous() for name, t in gallery.state_dict().items()}
        _replace(folder / file, save(tensors, metadata={"format": "pt"}))
        photos = gallery.photos if any(gallery.photos) else ()
        values[GALLERY] = {"file": file, "scale": gallery.scale, "photos": photos}
    _write_config(values, folder / CONFIG_FILE)
    for earlier in folder.glob("vectors-*.safetensors"):
        if earlier.name != file:
            earlier.unlink(missing_ok=True)


def save_decision(decision: Decision, classes: Sequence[str], folder: str | Path) -> None:
    """Write how a stored classifier decides; all else in its folder stays as it is.

    Whenever the process is killed, the folder holds what it held before or what it is to hold.

    Args:
        decision: how it is to decide.
        classes: those that the decision is of.
        folder: with its config.json.

    Raises:
        PretrainedError: there is no such classifier, or it has other classes by now.
        OSError: the folder cannot be written to; what was in it stays.
    """
    path = Path(folder) / CONFIG_FILE
    values = _read_config(path)
    if values.get("classes") != list(classes):
        raise PretrainedError(
            f"{path} has other classes than the threshold is of: they were changed meanwhile; run "
            "this again"
        )
    values["decision"] = decision.to_dict()
    _write_config(values, path)


def gallery_of(classifier: Classifier) -> Gallery | None:
    """Return the gallery behind a classifier's head, or None where a linear layer is there."""
    return classifier.classifier if isinstance(classifier.classifier, Gallery) else None


def _build(description: Description, gallery: Gallery | None) -> Classifier:
    if gallery is None:
        return description.build()
    # The linear layer gives way to the gallery: one of a single class is made sooner.
    classifier = replace(description, classes=description.classes[:1]).build()
    classifier.set_gallery(gallery)
    classifier.description = description
    return classifier


def push_to_hub(
    classifier: Classifier,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload a classifier of lca_fused",
) -> str:
    """Upload what `save_pretrained` writes, with a model card, to the Hugging Face Hub.

    Args:
        classifier: a classifier that has a description.
        repo_id: the repository, "owner/name"; made if needed.
        private: whether a repository made now is private; None for its owner's default.
        token: the account's token; None for the one that `hf auth login` stored.
        commit_message: the message of the commit.

    Returns:
        Address of the commit.

    Raises:
        ValueError: as `save_pretrained` does.
        PretrainedError: the Hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(classifier, folder)
        Path(folder, "README.md").write_text(_card(described(classifier), repo_id), "utf-8")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message
            )
        except Exception as error:  # of the hub's client or of what it sends with
            raise PretrainedError(_line(f"{repo_id} cannot be uploaded: {error}")) from error
    return str(commit.commit_url)


def _fetch(source: str) -> Path:
    """Return the folder in the Hub's cache that holds the files of "hf-hub:owner/name"."""
    from huggingface_hub import hf_hub_download

    repo_id, _, revision = source.removeprefix(_HUB).partition("@")
    try:
        fetch = partial(hf_hub_download, repo_id, revision=revision or None)
        config = Path(fetch(CONFIG_FILE))
        fetch(WEIGHTS_FILE)
        vectors = _vectors_file(_read_config(config))
        if vectors is not None:
            fetch(vectors)
    except PretrainedError:
        raise
    except Exception as error:  # of the hub's client or of what it sends with
        raise PretrainedError(
            _line(f"{source} cannot be fetched: {error} (a folder can be loaded without the Hub)")
        ) from error
    return config.parent


def _read_description(folder: Path) -> tuple[Description, Gallery | None]:
    path = folder / CONFIG_FILE
    for left in reversed(range(_TRIES)):
        values = _read_config(path)
        try:
            return Description.from_dict(values), _read_gallery(folder, values)
        except FileNotFoundError as error:  # or else somebody has just changed the gallery
            if not left:
                raise PretrainedError(
                    f"there is no {error.filename}, which {path} names: fetch it too"
                ) from error
        except ValueError as error:
            raise PretrainedError(_line(f"{path} cannot be used: {error}")) from error
    raise AssertionError


def _read_gallery(folder: Path, config: dict[str, Any]) -> Gallery | None:
    """Return the gallery that a config.json describes, or None where it describes none.

    Raises:
        FileNotFoundError: its vectors are not there.
        ValueError: it cannot be used.
    """
    file = _vectors_file(config)
    if file is None:
        return None
    path, scale, photos = folder / file, config[GALLERY].get("scale"), config[GALLERY].get("photos")
    if not isinstance(scale, int | float) or not isinstance(photos, list):
        raise ValueError(f"its {GALLERY} has the scale {scale!r} and the photos {photos!r}")
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    try:
        state = load_file(path)
        return Gallery(
            state["embeddings"], state["products"], config["classes"], photos or None, scale
        )
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} is damaged, or no gallery's vectors: {error}") from error


def _vectors_file(config: dict[str, Any]) -> str | None:
    """Return the name of the file with a gallery's vectors, or None where there is no gallery."""
    if GALLERY not in config:
        return None
    values = config[GALLERY]
    file = values.get("file") if isinstance(values, dict) else None
    if not isinstance(file, str) or not _VECTORS.fullmatch(file):
        raise ValueError(f"its {GALLERY} names the file {file!r}; expected vectors-*.safetensors")
    return file


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PretrainedError(
            f"there is no {path}; expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, as "
            "save_pretrained and finetune.py write it"
        )
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}; expected an object")
        return values
    except (ValueError, OSError) as error:
        raise PretrainedError(_line(f"{path} cannot be used: {error}")) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise PretrainedError(
            f"there is no {path}; other files of weights beside {CONFIG_FILE} are not read, as "
            "they may be pickles, which run code"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PretrainedError(
            _line(f"{path} is damaged, or no safetensors file: {error}; fetch or write it again")
        ) from error


def _load(classifier: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    difference = difference_of(state, classifier.state_dict())
    if difference:
        raise PretrainedError(
            f"{path} does not hold the weights of the network in {CONFIG_FILE}: {difference}"
        )
    spoilt = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if spoilt:
        raise PretrainedError(
            f"{path} holds numbers that are not finite in {_some(spoilt)}; its training went "
            "wrong: take another model"
        )
    classifier.load_state_dict(state, assign=True)


def difference_of(state: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return how tensors differ from those expected, in words; empty where they do not."""
    problems = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in state and state[name].shape != expected[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind} ({_some(names)})" for kind, names in problems.items() if names
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _write_config(values: dict[str, Any], path: Path) -> None:
    _replace(path, (json.dumps(values, indent=1) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent, whenever the process is killed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def installed_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python, of what stored classifiers need, and of `more` packages."""
    names = (*_PACKAGES, *more)
    installed = {name: version for name in names if (version := _version(name)) is not None}
    return {"python": platform.python_version()} | installed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _card(description: Description, repo_id: str) -> str:
    licence = f"license: {description.licence}\n" if description.licence else ""
    accuracy = "".join(f"- {name}: {value}\n" for name, value in description.accuracy.items())
    return (
        f"---\nlibrary_name: lca_fused\npipeline_tag: image-classification\n{licence}---\n\n"
        f"# {repo_id}\n\n{len(description.classes)} products, {description.head['name']} on "
        f"{description.backbone}.\n\n{accuracy}\n"
        '```sh\npip install "lca-fused[models]"\n```\n\n```python\n'
        "from lca_fused import load_classifier\n\n"
        f'classifier = load_classifier("{_HUB}{repo_id}")\n'
        'print(classifier.predict("photo.jpg").name)\n```\n'
    )


def _line(text: str) -> str:
    return " ".join(text.split())
