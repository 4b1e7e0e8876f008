"""The journal: what is in it is done, whatever ended the process that wrote it."""

import json
import os

import pytest

from resnest_d2.predict import journal as module
from resnest_d2.predict.journal import JOURNAL, Journal

SETTINGS = {"score_threshold": 0.5, "root": "/pictures"}


def record(name: str, size: int = 1) -> dict:
    return {"name": name, "stamp": [size, 7], "drawing": None, "instances": [size]}


@pytest.fixture
def folder(tmp_path):
    """Of a run that has done two images."""
    with Journal(tmp_path / "out", SETTINGS) as journal:
        journal.append([record("b.jpg"), record("a.jpg")])
    return tmp_path / "out"


def test_it_goes_on_where_it_stopped_and_keeps_the_order(folder):
    with Journal(folder, SETTINGS) as journal:
        assert journal.is_done("a.jpg", [1, 7]) and not journal.is_done("c.jpg", [1, 7])
        journal.append([record("c.jpg")])
        assert [r["name"] for r in journal.records()] == ["b.jpg", "a.jpg", "c.jpg"]
        journal.append([record("d.jpg")])
        assert [r["name"] for r in journal.records()] == ["b.jpg", "a.jpg", "c.jpg", "d.jpg"]


def test_a_file_that_changed_is_not_done_and_its_last_line_counts(folder):
    with Journal(folder, SETTINGS) as journal:
        assert not journal.is_done("b.jpg", [2, 7])
        journal.append([record("b.jpg", size=2)])
    with Journal(folder, SETTINGS) as journal:
        assert journal.is_done("b.jpg", [2, 7])
        assert [r["instances"] for r in journal.records()] == [[2], [1]]


def test_wherever_the_last_line_was_cut_all_others_count(folder):
    whole = (folder / JOURNAL).read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for end in range(last, len(whole)):
        (folder / JOURNAL).write_bytes(whole[:end])
        with Journal(folder, SETTINGS) as journal:
            assert [r["name"] for r in journal.records()] == ["b.jpg"]
            journal.append([record("a.jpg")])
        assert (folder / JOURNAL).read_bytes() == whole


def test_nothing_of_a_line_that_was_cut_stays_behind_a_shorter_one(folder):
    whole = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(whole[:-1])
    with Journal(folder, SETTINGS) as journal:
        journal.append([record("c")])
    assert json.loads((folder / JOURNAL).read_bytes().splitlines()[-1]) == record("c")


def test_a_line_is_written_whole_where_the_system_takes_it_in_parts(folder, monkeypatch):
    class Slow:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __iter__(self):
            return iter(self._file)

        def write(self, data):
            return self._file.write(data[:10])

    def slow_open(path, mode="r", **kwargs):
        file = open(path, mode, **kwargs)
        return Slow(file) if mode == "r+b" else file

    monkeypatch.setattr(module, "open", slow_open, raising=False)
    with Journal(folder, SETTINGS) as journal:
        journal.append([record("c.jpg"), record("d.jpg")])
    lines = (folder / JOURNAL).read_bytes().splitlines()
    assert [json.loads(line) for line in lines[-2:]] == [record("c.jpg"), record("d.jpg")]


@pytest.mark.parametrize("line", [0, 1], ids=["settings", "image"])
@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_line_is_refused_with_its_number(line, damage, folder):
    lines = (folder / JOURNAL).read_bytes().splitlines()
    lines[line] = damage
    (folder / JOURNAL).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match=f"{JOURNAL} is damaged in line {line + 1}"):
        Journal(folder, SETTINGS)


def test_other_settings_are_refused_and_named(folder):
    before = (folder / JOURNAL).read_bytes()
    with pytest.raises(ValueError, match=r"other settings: score_threshold 0\.5 \(now 0\.3\)\."):
        Journal(folder, {**SETTINGS, "score_threshold": 0.3})
    assert (folder / JOURNAL).read_bytes() == before
    with Journal(folder, SETTINGS):  # the refusal has not kept it locked
        pass


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "predictions.json").write_text("mine")
    with pytest.raises(FileExistsError, match="holds files, but no journal.jsonl"):
        Journal(tmp_path, SETTINGS)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.json"]


def test_two_processes_do_not_share_a_journal(folder):
    with Journal(folder, SETTINGS):
        with pytest.raises(ValueError, match="another process predicts into"):
            Journal(folder, SETTINGS)


def test_lines_are_on_the_disk_before_their_images_are_done(folder, monkeypatch):
    seen = []
    with Journal(folder, SETTINGS) as journal:
        before = (folder / JOURNAL).stat().st_size

        def fsync(descriptor):
            more = os.fstat(descriptor).st_size - before
            seen.append((more, journal.is_done("c.jpg", [1, 7])))

        monkeypatch.setattr(os, "fsync", fsync)
        journal.append([record("c.jpg")])
        assert journal.is_done("c.jpg", [1, 7])
    assert seen == [(len(json.dumps(record("c.jpg"))) + 1, False)]


def test_its_lines_are_json(folder):
    first, *others = map(json.loads, (folder / JOURNAL).read_text().splitlines())
    assert first == {"settings": SETTINGS}
    assert others == [record("b.jpg"), record("a.jpg")]
