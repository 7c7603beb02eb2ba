"""Every command and every Python example of the documentation, as it stands there."""

from __future__ import annotations

import functools
import re
import runpy
import shlex
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from inspect import isfunction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import tyro
from packaging.requirements import Requirement
from PIL import Image

from tests.stored_models import write_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = SETTINGS["project"]["optional-dependencies"]

PROGRAMS = ("python", "torchrun", "pip", "uv", "pytest", "bash")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.S | re.M)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command in a shell block or between backticks."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    quoted = [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
    inline = [code for code in quoted if re.match(rf"([A-Z_]+=\S+ )?({'|'.join(PROGRAMS)}) ", code)]
    script = "\n".join([*blocks(page, "sh"), *inline]).replace("\\\n", " ")
    for line in script.splitlines():
        for command in re.split(r"&&|\|", line):
            words = [word for word in shlex.split(command, comments=True) if word != "..."]
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if words:
                yield words


COMMANDS = sorted({tuple(words) for page in PAGES for words in commands(page)})


def of_programs(*programs: str) -> list[tuple[str, ...]]:
    return [words for words in COMMANDS if words[0] in programs]


class Parsed(BaseException):
    """The command line was understood."""


def then_stop(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        raise Parsed

    return run


def instead_of(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*_: Any, **__: Any) -> Any:
        raise Parsed

    return run


@pytest.fixture
def only_parsed(monkeypatch):
    """Programs end once they have their options."""
    read, choose = tyro.cli, tyro.extras.subcommand_cli_from_dict

    def read_options(wanted: Any, **given: Any) -> Any:
        read(instead_of(wanted) if isfunction(wanted) else wanted, **given)
        raise Parsed

    def choose_command(functions: dict[str, Callable[..., Any]], **given: Any) -> Any:
        return choose({name: instead_of(call) for name, call in functions.items()}, **given)

    monkeypatch.setattr(ArgumentParser, "parse_args", then_stop(ArgumentParser.parse_args))
    monkeypatch.setattr(tyro, "cli", read_options)
    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", choose_command)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def start(program: str) -> None:
    if program.endswith(".py"):
        runpy.run_path(str(ROOT / program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


@pytest.mark.parametrize("words", of_programs("python", "torchrun"), ids=" ".join)
def test_a_program_of_ours_takes_the_options(only_parsed, monkeypatch, words):
    starts = (k for k, word in enumerate(words) if word.endswith(".py") or words[k - 1] == "-m")
    program, *options = words[next(starts) :]
    monkeypatch.setattr(sys, "argv", [program, *options])
    with pytest.raises((Parsed, SystemExit)) as ended:
        start(program)
    assert ended.type is Parsed or ("--help" in options and ended.value.code == 0)


@pytest.mark.parametrize("words", of_programs("pip", "uv"), ids=" ".join)
def test_an_installation_names_extras_that_there_are(words):
    ours = [word for word in words if re.match(r"(\.|lca-fused)(\[|$)", word)]
    assert ours
    for word in ours:
        asked = Requirement(word.replace(".", "lca-fused", 1) if word[0] == "." else word)
        assert asked.extras <= set(EXTRAS)


@pytest.mark.parametrize("words", of_programs("pytest", "bash"), ids=" ".join)
def test_a_test_command_names_files_and_markers_that_there_are(words):
    files = [word for word in words if "/" in word and "=" not in word]
    assert [file for file in files if not (ROOT / file).exists()] == []
    if "-m" in words:
        marked = words[words.index("-m") + 1].removeprefix("not ")
        known = SETTINGS["tool"]["pytest"]["ini_options"]["markers"]
        assert marked in [marker.partition(":")[0] for marker in known]


def test_every_command_is_of_a_program_that_is_tested():
    unknown = {words[0] for words in COMMANDS} - {*PROGRAMS, "pre-commit", "mkdocs"}
    assert unknown == set()
    assert len(COMMANDS) > 30


def untrained(weights: torchvision.models.WeightsEnum, **_: Any) -> dict[str, torch.Tensor]:
    network = type(weights).__name__.removesuffix("_Weights").lower()
    return torchvision.models.get_model(network).state_dict()


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=lambda p: p.name)
def test_examples_run(page, monkeypatch, tmp_path):
    """One after the other, in a folder with a MODEL and a photo.jpg, and no network."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "MODEL")
    photo = np.zeros((224, 224, 3), np.uint8)
    Image.fromarray(photo).save("photo.jpg")
    monkeypatch.setattr(torchvision.models.WeightsEnum, "get_state_dict", untrained)
    names: dict[str, Any] = {"photo": photo, "images": torch.zeros(2, 3, 224, 224)}
    for number, example in enumerate(blocks(page, "python")):
        exec(compile(example, f"{page.name}, example {number + 1}", "exec"), names)
