"""Command lines for the reader: they work in any folder, and are quoted for this system's shell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).resolve().parent


def command_line(script: str, *words: str | Path) -> str:
    """Return the command that runs a script of this folder, with this very Python.

    Args:
        script: name of the script's file.
        words: arguments of the script; paths are made absolute.
    """
    python = sys.executable or "python"
    return joined([python, str(_SCRIPTS / script), *map(_absolute, words)])


def joined(words: Sequence[str]) -> str:
    """Return words as one line that this system's shell takes apart into them again."""
    if sys.platform == "win32":
        return subprocess.list2cmdline(words)
    return " ".join(map(_quoted, words))


def changed_options(options: Any, default: Any) -> list[str]:
    """Return the words that make one dataclass of options of another, as tyro reads them.

    Args:
        options: the options wanted; paths are made absolute.
        default: the options that the command takes without any words.
    """
    before = flatten(asdict(default))
    words = []
    for name, value in flatten(asdict(options)).items():
        if before.get(name) != value:
            words += option(name, value)
    return words


def option(name: str, value: Any) -> list[str]:
    """Return the words that set an option, such as "recipe.image_size", to a value."""
    *path, last = name.replace("_", "-").split(".")
    if isinstance(value, bool):
        return ["--" + ".".join([*path, last if value else f"no-{last}"])]
    values = value if isinstance(value, list | tuple) else [value]
    return ["--" + ".".join([*path, last]), *map(_absolute, values)]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level: {"recipe": {"epochs": 3}} -> {"recipe.epochs": 3}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _absolute(word: Any) -> str:
    return str(word.absolute() if isinstance(word, Path) else word)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Bytes that are no text, line ends: what a terminal shows of them could not be typed again.
    return "$'" + "".join(map(_typed, os.fsencode(word))) + "'"


def _typed(byte: int) -> str:
    plain = 32 <= byte < 127 and byte not in b"\\'"
    return chr(byte) if plain else f"\\x{byte:02x}"
