"""The played NVIDIA library of a present and of an old driver, and a process that reads through it."""

from collections.abc import Iterator

import pytest

from tests.worker.hardware.played import PlayedGpus, Reader, build


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory) -> PlayedGpus:
    """GPUs of a present driver."""
    folder = tmp_path_factory.mktemp("nvml")
    return PlayedGpus(folder, build(folder))


@pytest.fixture(scope="session")
def process(played: PlayedGpus) -> Iterator[Reader]:
    """One process for all tests; it takes half a second to start."""
    with Reader(played) as reader:
        yield reader


@pytest.fixture
def gpus(played: PlayedGpus) -> PlayedGpus:
    """Four healthy GPUs."""
    played.reset(4)
    return played


@pytest.fixture
def reader(gpus: PlayedGpus, process: Reader) -> Iterator[Reader]:
    """Reads `gpus` after `open`."""
    yield process
    process.close()


@pytest.fixture
def old_gpus(tmp_path_factory: pytest.TempPathFactory) -> PlayedGpus:
    """Two healthy GPUs of a driver without later functions."""
    folder = tmp_path_factory.mktemp("old")
    gpus = PlayedGpus(folder, build(folder, "-DOLD"))
    gpus.reset(2)
    return gpus


@pytest.fixture
def old_reader(old_gpus: PlayedGpus) -> Iterator[Reader]:
    """Reads `old_gpus`."""
    with Reader(old_gpus) as reader:
        yield reader
