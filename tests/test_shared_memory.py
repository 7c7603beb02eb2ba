"""Workers whose batches the shared memory does not hold."""

from types import SimpleNamespace

import pytest

from experiments.training import shared_memory
from experiments.training.device import DeviceError
from experiments.training.shared_memory import workers_that_fit

BATCH = {"photos": 10, "image_size": 100}  # of 1.2 MB


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """A machine with so many MB of shared memory."""
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)

    def free(megabytes):
        usage = SimpleNamespace(free=megabytes * 1_000_000)
        monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: usage)

    return free


@pytest.mark.parametrize(
    ("megabytes", "fitting"), [(64, 4), (10.8, 4), (10.7, 3), (3.7, 1), (3, 0)]
)
def test_as_many_work_as_fit_and_the_rest_is_said(memory, caplog, megabytes, fitting):
    memory(megabytes)
    assert workers_that_fit(4, None, **BATCH) == fitting
    assert bool(caplog.messages) is (fitting < 4)
    assert all("--shm-size" in message for message in caplog.messages)


def test_a_number_that_was_asked_for_is_refused_with_one_that_fits(memory):
    memory(6)
    with pytest.raises(DeviceError, match=r"6\.0 MB free.*up to 10\.8 MB.*--workers 2"):
        workers_that_fit(4, 4, **BATCH)


def test_the_processes_of_a_machine_share_it(memory, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    memory(10.8)
    assert workers_that_fit(4, None, **BATCH) == 1


def test_without_workers_or_such_a_folder_there_is_no_limit(memory, monkeypatch, tmp_path):
    memory(0)
    assert workers_that_fit(0, 0, **BATCH) == 0
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / "nowhere")
    assert workers_that_fit(9, 9, **BATCH) == 9
