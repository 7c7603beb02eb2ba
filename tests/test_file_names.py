"""Names of output files that every file system takes."""

import pytest

from experiments.file_names import FileNames


@pytest.mark.parametrize("name", ["front.jpg", "Фото 1.jpg", "a" * 130, "console.jpg", "com.jpg"])
def test_a_name_for_every_system_is_kept(name):
    assert FileNames().take(name, ".png") == f"{name}.png"


@pytest.mark.parametrize(
    "name",
    ["con.jpg", "AUX", "nul.tar.gz", "com1.jpg", "lpt9", "10:30.jpg", "a|b", "caf\udce9", "a\nb"],
)
def test_a_name_that_some_system_refuses_is_changed_the_same_way_in_every_run(name):
    given = FileNames().take(name, ".png")
    assert given != f"{name}.png"
    assert given == FileNames().take(name, ".png")
    assert not set(given) & set('<>:"/\\|?*\n\udce9')
    assert given.split(".")[0].lower() not in {"con", "aux", "nul", "com1", "lpt9"}


def test_names_that_are_changed_alike_stay_apart():
    assert FileNames().take("10:30", ".png") != FileNames().take("10|30", ".png")


@pytest.mark.parametrize("letter", ["a", "é", "可", "\udcff"])
def test_long_names_are_cut_to_what_a_file_system_takes(tmp_path, letter):
    names = FileNames()
    given = {names.take(letter * 250 + str(end), ".png") for end in range(20)}
    assert len(given) == 20
    for name in given:
        (tmp_path / name).touch()
        assert len(name.encode()) <= 143


def test_names_that_a_file_system_may_take_for_the_same_are_counted():
    names = FileNames()
    given = [names.take(name, ".png") for name in ("Cafe\u0301", "café", "CAFÉ", "other")]
    assert given == ["Cafe\u0301.png", "café-2.png", "CAFÉ-3.png", "other.png"]
