"""Command lines that are printed for the reader."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tyro

from experiments.command_lines import changed_options, command_line, joined


def test_script_python_and_paths_are_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    python, script, *words = shlex.split(command_line("predict.py", Path("my model.pt"), "--x"))
    assert python == sys.executable
    assert Path(script).is_file()
    assert words == [str(tmp_path / "my model.pt"), "--x"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    "word", ["plain", "my photos", "it's", "$HOME", "Фото", "caf\udce9's \\d", "a\nb", "tab\t", ""]
)
def test_a_shell_reads_the_very_words(word):
    echo = "import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]))"
    line = joined([sys.executable, "-c", echo, word])
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bytes_that_are_no_text_are_printed_as_ascii():
    assert joined(["caf\udce9"]) == "$'caf\\xe9'"


@dataclass(frozen=True)
class Inner:
    scale: tuple[float, float] = (0.1, 1.0)
    hidden_size: int = 3


@dataclass(frozen=True)
class Options:
    place: Path | None = None
    flag: bool = False
    other: bool = True
    names: tuple[str, ...] = ("a",)
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(place=Path("/a b"), flag=True, other=False),
        Options(names=("b", "c d"), inner=Inner((0.5, 0.75), 4)),
    ],
)
def test_options_parse_back(options):
    words = changed_options(options, Options())
    assert tyro.cli(Options, args=words) == options
    assert (words == []) is (options == Options())
