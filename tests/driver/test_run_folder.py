"""The run folder: results survive crashes and full disks, and are read as written."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from openseer_core.errors import InputError, OutputError
from openseer_driver.run_folder import ResultsWriter, RunFolder
from openseer_driver.run_lines import ResultLine, RunRecord, Session
from tests.driver.sample_runs import SMALL, result_line, run_record, write_run

FEW = replace(SMALL, groups=4, size=4, mean=40.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create()
    return made


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[ResultLine]:
    simulation = write_run(tmp_path_factory.mktemp("few"), FEW)
    return [result_line(result) for result in simulation.results()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a disk of 64 KiB can be mounted only by root, where mounts are allowed")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_results_are_read_back_as_they_were_written(folder: RunFolder, lines: list[ResultLine]) -> None:
    with ResultsWriter(folder) as writer:
        assert writer.write(lines) == len(lines)
        writer.flush()

    assert list(folder.results()) == lines
    assert [fact.length for fact in folder.facts()] == [len(line.token_ids) for line in lines]
    assert folder.torn_bytes() == 0


def test_a_reopened_file_accepts_no_present_result_again(folder: RunFolder, lines: list[ResultLine]) -> None:
    with ResultsWriter(folder) as writer:
        writer.write(lines[:5])
        writer.flush()

    with ResultsWriter(folder) as writer:
        assert [line.key in writer.present for line in lines[:6]] == [True] * 5 + [False]
        assert writer.write([*lines, lines[-1]]) == len(lines) - 5
        writer.flush()

    assert sorted(line.key for line in folder.results()) == sorted(line.key for line in lines)


def test_readers_report_a_torn_last_line_and_the_next_writer_removes_it(
    folder: RunFolder, lines: list[ResultLine]
) -> None:
    with ResultsWriter(folder) as writer:
        writer.write(lines[:2])
    with folder.results_file.open("ab") as file:
        file.write(msgspec.json.encode(lines[2])[:-9])
    torn = len(msgspec.json.encode(lines[2])) - 9

    assert folder.torn_bytes() == torn
    assert list(folder.results()) == lines[:2]
    with ResultsWriter(folder) as writer:
        assert (writer.dropped_bytes, writer.count) == (torn, 2)
        writer.write(lines[2:3])
    assert list(folder.results()) == lines[:3]


def test_a_file_of_nothing_but_a_torn_line_is_emptied(folder: RunFolder) -> None:
    folder.results_file.write_bytes(b'{"batch":' + b" " * (3 << 20))

    with ResultsWriter(folder) as writer:
        assert writer.count == 0

    assert folder.results_file.stat().st_size == 0


def test_a_damaged_line_before_the_last_is_an_error_that_names_it(folder: RunFolder, lines: list[ResultLine]) -> None:
    with ResultsWriter(folder) as writer:
        writer.write(lines[:2])
    with folder.results_file.open("ab") as file:
        file.write(b'{"batch": 0, "gro\n')

    with pytest.raises(InputError, match=r"results\.jsonl, line 3: not a result"):
        list(folder.results())
    with pytest.raises(InputError, match="line 3"):
        ResultsWriter(folder)


def test_a_second_writer_of_one_run_is_refused(folder: RunFolder) -> None:
    with ResultsWriter(folder), pytest.raises(OutputError, match="another run is writing here"):
        ResultsWriter(folder)

    ResultsWriter(folder).close()


def test_a_writer_killed_mid_write_leaves_only_whole_lines(folder: RunFolder) -> None:
    program = textwrap.dedent(
        """
        import sys
        from openseer_driver.run_folder import ResultsWriter, RunFolder
        from openseer_driver.run_lines import ResultLine, Timings

        with ResultsWriter(RunFolder(sys.argv[1])) as writer:
            for index in range(10**9):
                line = ResultLine(0, "g", index, "initial", "ok", "stop", None, [], None, [7] * 5000, None, None, "",
                                  {}, [], [], Timings(0.0, None, 1.0, 1.0), index)
                writer.write([line])
                writer.flush()
                print(index, flush=True)
        """
    )
    safe = -1
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program, str(folder.path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(40):
                safe = max(safe, int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            safe = max([safe, *(int(rest) for rest in process.stdout.read().split())])

        with ResultsWriter(folder) as writer:
            assert writer.count > safe
        assert [line.index for line in folder.results()] == list(range(writer.count))


def test_a_full_disk_error_counts_safe_results_and_a_rerun_continues(small_disk: Path, lines: list[ResultLine]) -> None:
    folder = RunFolder(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 40_000)
    numbered = [msgspec.structs.replace(line, index=place) for place, line in enumerate(lines * 100)]
    with ResultsWriter(folder) as writer:
        with pytest.raises(OutputError) as caught:
            _write_each(writer, numbered)
        written = writer.count
    assert written > 0

    assert "results.jsonl: disk full while writing results" in str(caught.value)
    assert f"{written} results are safe; free space and run the same command again" in str(caught.value)
    assert caught.value.exit_code == 3
    assert len(list(folder.results())) == written
    assert folder.torn_bytes() == 0

    ballast.unlink()
    with ResultsWriter(folder) as writer:
        assert writer.write(numbered[: written + 3]) == 3
        writer.flush()
    assert list(folder.results()) == numbered[: written + 3]


def test_a_failing_fsync_removes_the_lines_in_doubt(
    folder: RunFolder, lines: list[ResultLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with ResultsWriter(folder) as writer:
        writer.write(lines[:2])
        writer.flush()
        writer.write(lines[2:5])
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OutputError, match="Input/output error while writing results; 2 results are safe"):
            writer.flush()
        monkeypatch.undo()

        assert writer.write(lines[2:5]) == 3
        writer.flush()
    assert list(folder.results()) == lines[:5]


def test_run_json_is_replaced_as_a_whole(folder: RunFolder) -> None:
    first = run_record("run", SMALL, 5.0)
    folder.write_run(first)
    second = msgspec.structs.replace(first, state="stopped", sessions=[*first.sessions, Session(9.0)])
    folder.write_run(second)

    assert folder.read_run() == second
    assert [path.name for path in folder.path.iterdir() if path.is_file()] == ["run.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_run_json_without_disk_space_leaves_the_old_one(small_disk: Path) -> None:
    folder = RunFolder(small_disk)
    first = run_record("run", SMALL, 5.0)
    folder.write_run(first)
    before = sorted(path.name for path in small_disk.iterdir())

    with pytest.raises(OutputError, match=r"run\.json: cannot be written"):
        folder.write_run(msgspec.structs.replace(first, reason="x" * 100_000))

    assert folder.read_run() == first
    assert sorted(path.name for path in small_disk.iterdir()) == before


def test_concurrent_replacements_of_a_file_are_each_whole(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.create()
    fsync = os.fsync

    def meanwhile(number: int) -> None:
        monkeypatch.undo()
        folder.write_whole(folder.report_file, b"the other's")
        fsync(number)

    monkeypatch.setattr(os, "fsync", meanwhile)
    folder.write_whole(folder.report_file, b"mine")
    assert folder.report_file.read_bytes() == b"mine"
    assert [path.name for path in folder.path.iterdir()] == [folder.report_file.name]


@pytest.mark.parametrize("read", [RunFolder.facts, RunFolder.results])
def test_an_unknown_status_is_named_with_its_line(
    folder: RunFolder, lines: list[ResultLine], read: Callable[[RunFolder], Iterator[object]]
) -> None:
    folder.create()
    odd = msgspec.json.encode(lines[0]).replace(b'"status":"ok"', b'"status":"weird"')
    folder.results_file.write_bytes(odd + b"\n")
    with pytest.raises(InputError, match=r"results\.jsonl, line 1: .*weird.*status"):
        list(read(folder))


def test_a_folder_in_place_of_a_file_is_named(folder: RunFolder) -> None:
    folder.create(folder.results_file, folder.samples_file)
    for read in (folder.results, folder.facts, folder.sized_keys, folder.samples):
        with pytest.raises(InputError, match=r"\.jsonl: cannot be read: Is a directory"):
            list(read())


def test_a_folder_without_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the folder of a run"):
        RunFolder(tmp_path).read_run()


def test_samples_skip_a_torn_line(folder: RunFolder) -> None:
    folder.samples_file.write_bytes(b'{"at": 1.0}\n{"at": 2.0, "wai{"at": 3.0}\n{"at": 4.0}\n')

    assert [sample.at for sample in folder.samples()] == [1.0, 4.0]


def test_a_setting_is_found_by_its_path() -> None:
    record: RunRecord = run_record("run", SMALL, 5.0)

    assert record.setting("sampling", "maxTokens") == SMALL.max_tokens
    assert record.setting("sampling", "nothing", "below") is None


def _write_each(writer: ResultsWriter, lines: list[ResultLine]) -> None:
    for line in lines:
        writer.write([line])
        writer.flush()
