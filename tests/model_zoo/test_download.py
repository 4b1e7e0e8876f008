"""Downloads from a real server on loopback: the right file arrives, or the right error does."""

import errno
import functools
import hashlib
import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import pytest
from mirror import content, mirror, status

from resnest_d2.checkpoint.statistics import CLASSIFIER
from resnest_d2.engine import RunRequest, prepare
from resnest_d2.engine.prepare import config_checks
from resnest_d2.model_zoo import WEIGHTS, DownloadError, WeightFile, download, fetch
from resnest_d2_command import main

DATA = random.Random(0).randbytes(3 << 20)  # gdown writes pieces of 512 KiB
OTHER = random.Random(1).randbytes(len(DATA))
HASH = hashlib.sha256(DATA).hexdigest()
CUT = 2 << 20
PAGE = b"\n<!DOCTYPE html><title>Not here</title>" + b" " * (1 << 20)


@pytest.fixture
def server():
    with mirror() as here:
        yield here


@pytest.fixture
def second():
    with mirror() as here:
        yield here


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The cache folder of this test."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RESNEST_D2_WEIGHTS", raising=False)
    monkeypatch.setattr(download, "_TIMEOUT", (5, 20))
    monkeypatch.setattr(download, "_RETRIES", 1)
    return tmp_path / "cache" / "resnest_d2" / "weights"


@pytest.fixture
def publish(monkeypatch):
    """``publish(url, …)`` puts weights named net into the catalog."""

    def put(*urls, sha256=HASH, sha1=""):
        weights = WeightFile("net", urls, sha256, "official", CLASSIFIER, "Apache-2.0", sha1=sha1)
        monkeypatch.setitem(WEIGHTS, "net", weights)

    return put


def visible(folder: Path) -> list[str]:
    """Every file in a cache folder that does not lie in hidden places."""
    if not folder.is_dir():
        return []
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def assert_nothing_left(folder: Path) -> None:
    assert not visible(folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


@functools.cache  # it has the time in it
def container() -> bytes:
    """A zip, as PyTorch writes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data/0", DATA)
    return file.getvalue()


@pytest.mark.parametrize("known", [HASH, HASH[:8]])
def test_file_arrives_once_and_is_readable_by_all(server, publish, cache, known):
    publish(server.serves("/net-0123abcd.pth", content(DATA)), sha256=known)
    path = fetch("net")
    assert path == cache / "net.pth"
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o644
    assert fetch("net") == path
    assert server.requests == [("/net-0123abcd.pth", None)]
    assert visible(cache) == ["net.pth"]
    assert not list(cache.glob(".*.partial"))


@pytest.mark.parametrize("file", ["net.pth", "net.pkl", "net.safetensors"])
def test_suffix_is_the_published_ones(server, publish, file):
    publish(server.serves(f"/{file}", content(DATA)))
    assert fetch("net").name == file


def test_redirects_are_followed(server, second, publish):
    there = second.serves("/b.pth", content(DATA))
    publish(server.serves("/a.pth", status(302, Location=there)))
    assert fetch("net").read_bytes() == DATA


BAD_ANSWERS = {
    "404": (status(404), "404"),
    "403": (status(403), "403"),
    "500": (status(500), "500"),
    "truncated": (content(DATA, stop_after=CUT), "broken"),
    "reset": (content(DATA, stop_after=CUT, how="reset"), "reset|broken"),
    "stalled": (content(DATA, stop_after=CUT, how="stall"), "timed out"),
    "stalled at once": (content(DATA, stop_after=0, how="stall"), "timed out"),
    "other bytes": (content(OTHER), "sha256 .* expected " + HASH),
    "a page": (content(PAGE), "web page"),
    "nothing": (content(b""), "sha256"),
    "redirected to itself": (status(302, Location="/bad.pth"), "redirects"),
    "redirected to a file": (status(302, Location="file:///etc/passwd"), "file:///etc/passwd"),
}


@pytest.fixture
def kind(request, monkeypatch):
    """A key of BAD_ANSWERS; servers that stall are given up soon."""
    if "stalled" in request.param:
        monkeypatch.setattr(download, "_TIMEOUT", (5, 1))
    return request.param


@pytest.mark.parametrize("kind", BAD_ANSWERS, indirect=True)
def test_next_mirror_is_tried_after(kind, server, second, publish, cache):
    bad = server.serves("/bad.pth", BAD_ANSWERS[kind][0])
    publish(bad, second.serves("/good.pth", content(DATA)))
    assert fetch("net").read_bytes() == DATA
    assert not list(cache.glob(".*.partial"))


@pytest.mark.parametrize("kind", BAD_ANSWERS, indirect=True)
def test_error_names_the_reason_and_nothing_passes_for_the_file(kind, server, publish, cache):
    answer, reason = BAD_ANSWERS[kind]
    publish(server.serves("/bad.pth", answer))
    with pytest.raises(DownloadError, match=f"net .*{server.url}/bad.pth: .*{reason}") as error:
        fetch("net")
    assert "\n" not in str(error.value)
    assert not visible(cache)
    assert download.find("net") is None


def test_error_names_every_mirror(server, publish, cache):
    publish(server.url + "/a.pth", "http://127.0.0.1:9/b.pth", server.serves("/c", content(PAGE)))
    with pytest.raises(DownloadError, match=r"a.pth: 404.*b.pth: .*refused.*/c: .*web page"):
        fetch("net")
    assert_nothing_left(cache)


def test_broken_transfer_is_continued(server, publish):
    cut = content(DATA, etag='"1"', stop_after=CUT)
    publish(server.serves("/net.pth", cut, content(DATA, etag='"1"')))
    assert fetch("net").read_bytes() == DATA
    assert server.requests == [("/net.pth", None), ("/net.pth", f"bytes={CUT}-")]


def test_next_mirror_continues_what_the_first_began(server, second, publish):
    first = server.serves("/net.pth", content(DATA, stop_after=CUT), status(404))
    publish(first, second.serves("/net.pth", content(DATA)))
    assert fetch("net").read_bytes() == DATA
    assert second.requests[-1] == ("/net.pth", f"bytes={CUT}-")


def test_server_without_ranges_is_asked_for_everything(server, publish):
    whole = content(DATA, ranges=False)
    publish(server.serves("/net.pth", content(DATA, ranges=False, stop_after=CUT), whole))
    assert fetch("net").read_bytes() == DATA
    assert server.requests[-1] == ("/net.pth", None)


@pytest.mark.parametrize("known", [True, False])
def test_file_that_changes_in_mid_transfer_is_not_mixed(server, publish, known):
    new = container()
    old = random.Random(1).randbytes(len(new))
    first, then = content(old, etag='"old"', stop_after=CUT), content(new, etag='"new"')
    sha256 = hashlib.sha256(new).hexdigest() if known else ""
    publish(server.serves("/net.pth", first, then), sha256=sha256)
    assert fetch("net").read_bytes() == new


def test_change_that_no_etag_tells_is_seen_by_the_hash(server, publish, cache):
    publish(server.serves("/net.pth", content(OTHER, stop_after=CUT), content(DATA)))
    with pytest.raises(DownloadError, match="sha256"):
        fetch("net")
    assert_nothing_left(cache)
    assert fetch("net").read_bytes() == DATA


def test_file_that_changed_between_two_runs_is_not_mixed(server, publish, cache):
    cut = content(OTHER, etag='"old"', stop_after=CUT)
    url = server.serves("/net.pth", cut)
    publish(url)
    with pytest.raises(DownloadError):
        fetch("net")
    assert list(cache.rglob("*.part"))  # kept: the next run continues it
    server.serves("/net.pth", content(DATA, etag='"new"'))
    assert fetch("net").read_bytes() == DATA


def test_without_a_hash_a_file_must_be_a_container(server, publish, cache):
    publish(server.serves("/net.pth", content(DATA)), sha256="")
    with pytest.raises(DownloadError, match="no file of weights"):
        fetch("net")
    assert_nothing_left(cache)


@pytest.mark.parametrize(
    "data",
    [
        container(),
        b"\x80\x02}q\x00.",
        (2).to_bytes(8, "little") + b"{}",
    ],
)
def test_without_a_hash_containers_are_admitted(server, publish, data):
    publish(server.serves("/net.pth", content(data)), sha256="")
    assert fetch("net").read_bytes() == data


def test_without_a_hash_or_a_length_a_cut_zip_is_refused(server, publish, cache):
    cut = content(container(), stop_after=CUT, length=False)
    publish(server.serves("/net.pth", cut), sha256="")
    with pytest.raises(DownloadError, match="no file of weights"):
        fetch("net")
    assert_nothing_left(cache)


def zipped(*names: str) -> bytes:
    """An archive with these files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, DATA)
    return file.getvalue()


def test_a_file_in_a_zip_archive_is_unpacked_and_checked_by_its_sha1(server, publish, cache):
    sha1 = hashlib.sha1(DATA).hexdigest()
    publish(server.serves("/net.zip", content(zipped("net.pth", "r.txt"))), sha256="", sha1=sha1)
    assert fetch("net") == cache / "net.pth"
    assert (cache / "net.pth").read_bytes() == DATA
    assert visible(cache) == ["net.pth"] and not list(cache.glob(".*.partial"))


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (zipped("net.pth"), "the sha1 of its file is"),
        (zipped("a.pth", "b.pth"), "the sha1 of its file is"),
        (zipped("read.me"), "the sha1 of its file is"),
        (b"<html>", "a web page"),
    ],
    ids=["hash", "two", "none", "page"],
)
def test_a_wrong_zip_archive_is_refused(sent, reason, server, publish, cache):
    publish(server.serves("/net.zip", content(sent)), sha256="", sha1="0" * 40)
    with pytest.raises(DownloadError, match=reason):
        fetch("net")
    assert_nothing_left(cache)


def test_the_published_name_is_found_in_the_folder(publish, tmp_path, monkeypatch):
    publish("https://host/its_name-0123abcd.zip")
    (tmp_path / "its_name-0123abcd.pth").write_bytes(DATA)
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path))
    assert fetch("net") == tmp_path / "its_name-0123abcd.pth"


@pytest.mark.parametrize("wrong", [0, 3, 4, 7])
def test_each_digit_of_a_published_fragment_counts(server, publish, cache, wrong):
    digits = list(HASH[:8])
    digits[wrong] = "0" if digits[wrong] != "0" else "1"
    publish(server.serves("/net.pth", content(DATA)), sha256="".join(digits))
    with pytest.raises(DownloadError, match=f"{HASH}, expected {''.join(digits)}"):
        fetch("net")
    assert_nothing_left(cache)


@pytest.mark.parametrize("wrong", [8, 63])
def test_each_digit_of_a_whole_hash_counts(server, publish, cache, wrong):
    digits = list(HASH)
    digits[wrong] = "0" if digits[wrong] != "0" else "1"
    publish(server.serves("/net.pth", content(DATA)), sha256="".join(digits))
    with pytest.raises(DownloadError, match=f"{HASH}, expected {''.join(digits)}"):
        fetch("net")
    assert_nothing_left(cache)


def test_user_overrides_a_published_fragment_by_the_whole_hash(server, publish, cache):
    publish(server.serves("/net.pth", content(DATA)), sha256="01234567")
    with pytest.raises(DownloadError, match=f"{HASH}, expected 01234567 .*--sha256"):
        fetch("net")
    assert_nothing_left(cache)
    assert fetch("net", sha256=HASH.upper()).read_bytes() == DATA


def test_user_does_not_override_a_known_hash(server, publish):
    publish(server.serves("/net.pth", content(DATA)))
    with pytest.raises(ValueError, match=f"{HASH}, got {'0' * 64}"):
        fetch("net", sha256="0" * 64)
    assert not server.requests


@pytest.mark.parametrize("sha256", ["", "01234567", "x" * 64])
def test_sha256_that_is_none_is_refused(server, publish, sha256):
    publish(server.serves("/net.pth", content(DATA)))
    with pytest.raises(ValueError, match="64 hex digits"):
        fetch("net", sha256=sha256)


def test_older_good_file_is_never_touched(server, publish, cache):
    publish(server.serves("/net.pth", content(DATA)))
    cache.mkdir(parents=True)
    (cache / "net.pth").write_bytes(b"older")
    before = (cache / "net.pth").stat()
    assert fetch("net").read_bytes() == b"older"
    with pytest.raises(ValueError, match="net.pth is here and has another sha256"):
        fetch("net", sha256=HASH)
    assert (cache / "net.pth").stat() == before
    assert not server.requests


def test_offline_folder_wins(server, publish, cache, tmp_path, monkeypatch):
    publish(server.serves("/net.pth", content(DATA)))
    fetch("net")
    for file in ("net.safetensors", "net-01234567.pth"):
        (tmp_path / "own" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "own" / file).write_bytes(b"own")
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path / "own"))
    assert fetch("net") == tmp_path / "own" / "net.safetensors"
    monkeypatch.setenv("RESNEST_D2_WEIGHTS", str(tmp_path / "none"))
    assert fetch("net") == cache / "net.pth"


def test_unknown_name_is_refused_with_the_nearest(publish):
    publish("http://127.0.0.1:9/net.pth")
    with pytest.raises(FileNotFoundError, match="named nett; nearest: net"):
        fetch("nett")
    with pytest.raises(FileNotFoundError, match="zoo"):
        fetch("something_else_altogether")


def test_proxy_of_the_environment_is_used(server, publish, monkeypatch):
    url = "http://weights.invalid/net.pth"
    publish(url)
    server.answers[url] = [content(DATA)]  # a proxy is asked for whole addresses
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert fetch("net").read_bytes() == DATA
    assert server.requests == [(url, None)]


def test_no_network_is_an_error_of_every_mirror(publish, cache):
    publish("https://weights.invalid/a.pth", "http://weights.invalid/b.pth")
    with pytest.raises(DownloadError, match="a.pth: no connection.*b.pth: no connection"):
        fetch("net")
    assert_nothing_left(cache)


fork = multiprocessing.get_context("fork")  # a new interpreter would take seconds


def _fetch_together(start, results):
    start.wait()
    results.put(fetch("net").read_bytes() == DATA)


def test_eight_processes_cause_one_download(server, publish):
    publish(server.serves("/net.pth", content(DATA, delay=0.5)))
    start, results = fork.Barrier(8), fork.SimpleQueue()
    workers = [fork.Process(target=_fetch_together, args=(start, results)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert all(results.get() for _ in workers)
    assert server.requests == [("/net.pth", None)]


def _parts(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.part"))


@pytest.mark.parametrize("known", [HASH, ""])
def test_killed_download_leaves_nothing_that_passes_for_a_file(
    server, publish, cache, monkeypatch, known
):
    monkeypatch.setattr(download, "_TIMEOUT", (5, 60))
    data = DATA if known else container()
    publish(server.serves("/net.pth", content(data, stop_after=CUT, how="stall")), sha256=known)
    worker = fork.Process(target=fetch, args=("net",))
    worker.start()
    limit = time.monotonic() + 60
    while worker.is_alive() and _parts(cache) < CUT - (1 << 20) and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert _parts(cache)
    assert not visible(cache)
    assert download.find("net") is None
    for name in (".net", ".net.pth.partial", "net.pth.partial"):  # whatever a user may ask for
        with pytest.raises((ValueError, FileNotFoundError)):
            fetch(name)

    server.serves("/net.pth", content(data))
    del server.requests[:]
    assert fetch("net").read_bytes() == data
    continued = [asked for _, asked in server.requests if asked]
    assert len(continued) == bool(known)  # without a hash nothing would prove that parts match
    assert not list(cache.glob(".*.partial"))


def _mounted(folder: Path, options: str):
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting needs more rights")


@pytest.fixture(params=["size=1m", "ro"])
def small_or_read_only(request, cache):
    _mounted(cache, request.param)
    yield request.param
    subprocess.run(["umount", str(cache)], check=True)


def test_full_or_read_only_cache_is_named_and_stays_clean(
    small_or_read_only, server, second, publish, cache
):
    url = server.serves("/net.pth", content(DATA))
    publish(url, second.serves("/net.pth", content(DATA)))
    reason = "Read-only" if small_or_read_only == "ro" else "No space left"
    with pytest.raises(DownloadError, match=f"net cannot be stored in {cache}.*{reason}.*FVCORE"):
        fetch("net")
    assert_nothing_left(cache)
    assert not second.requests  # another mirror would not help


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_error_of_the_folder_ends_the_attempt(server, publish, cache, monkeypatch, code):
    def full(url, folder, progress):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"begun")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(download, "_transfer", full)
    publish(server.url + "/a.pth", server.url + "/b.pth")
    with pytest.raises(DownloadError, match=f"stored in {cache}.*{os.strerror(code)}"):
        fetch("net")
    assert_nothing_left(cache)


def test_cache_that_is_no_folder_is_named(server, publish, tmp_path):
    (tmp_path / "cache").touch()
    publish(server.serves("/net.pth", content(DATA)))
    with pytest.raises(DownloadError, match=f"{tmp_path}/cache"):
        fetch("net")


def test_read_only_cache_serves_what_it_has(server, publish, cache, monkeypatch):
    publish(server.serves("/net.pth", content(DATA)))
    path = fetch("net")
    monkeypatch.setattr(Path, "mkdir", lambda *args, **kwargs: pytest.fail("it wrote"))
    monkeypatch.setattr(download, "FileLock", lambda *args: pytest.fail("it wrote"))
    assert fetch("net") == path


def test_hub_files_come_through_its_library_and_are_checked(publish, cache, monkeypatch):
    asked = []

    def hf_hub_download(repository, file, *, local_dir):
        asked.append((repository, file))
        path = Path(local_dir) / file
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA)
        return str(path)

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    publish("hf://timm/resnest50d.in1k/model.safetensors", sha256=HASH[:8])
    assert fetch("net") == cache / "net.safetensors"
    assert (cache / "net.safetensors").read_bytes() == DATA
    assert asked == [("timm/resnest50d.in1k", "model.safetensors")]
    assert not list(cache.glob(".*.partial"))

    (cache / "net.safetensors").unlink()
    publish("hf://timm/resnest50d.in1k/model.safetensors", sha256="01234567")
    with pytest.raises(DownloadError, match="sha256"):
        fetch("net")
    assert_nothing_left(cache)


def test_what_the_hub_began_is_kept_for_the_next_attempt(publish, cache, monkeypatch):
    def hf_hub_download(repository, file, *, local_dir):
        part = Path(local_dir) / ".cache" / f"{file}.incomplete"
        if part.exists():
            return str(part.rename(Path(local_dir) / file))
        part.parent.mkdir(parents=True)
        part.write_bytes(container())
        raise TimeoutError("the hub stalls")

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    publish("hf://timm/resnest50d.in1k/model.safetensors", sha256="")
    with pytest.raises(DownloadError, match="the hub stalls"):
        fetch("net")
    assert not visible(cache)
    assert fetch("net").read_bytes() == container()


def test_missing_hub_library_names_the_extra_and_the_next_mirror_is_tried(
    server, publish, monkeypatch
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    hub = "hf://timm/resnest50d.in1k/model.safetensors"
    publish(hub)
    with pytest.raises(DownloadError, match=r"huggingface_hub: pip install 'resnest-d2\[hub\]'"):
        fetch("net")
    publish(hub, server.serves("/net.safetensors", content(DATA)))
    assert fetch("net").read_bytes() == DATA


def test_command_downloads_and_prints_the_file(server, publish, cache, capsys):
    publish(server.serves("/net.pth", content(DATA)), sha256="01234567")
    assert main(["zoo", "download", "net"]) == 1
    assert f"{server.url}/net.pth: the sha256" in capsys.readouterr().err
    assert main(["zoo", "download", "nett"]) == 2
    assert "nearest: net" in capsys.readouterr().err
    assert main(["zoo", "download", "net", "--sha256", "1234"]) == 2
    assert "64 hex digits" in capsys.readouterr().err
    assert main(["zoo", "download", "net", "--sha256", HASH]) == 0
    assert capsys.readouterr().out == f"{cache / 'net.pth'}\n"


def test_run_gets_its_weights_before_it_starts(server, publish, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(config_checks, "require_registered", lambda names: None)
    opts = ("OUTPUT_DIR", str(tmp_path / "run"), "MODEL.WEIGHTS", "resnest://net")
    request = RunRequest("mask_rcnn_resnest50_fpn", opts)

    publish(server.url + "/gone.pth", "http://127.0.0.1:9/net.pth")
    ways_out = "MODEL.WEIGHTS FILE.*FREEZE_AT 0"
    with pytest.raises(
        FileNotFoundError, match=f"^the weights resnest://net .*gone.pth: 404.*:9/.*{ways_out}"
    ):
        prepare(request)

    publish(server.serves("/net.pth", content(DATA)))
    with pytest.raises(ValueError, match="net.pth is not a checkpoint"):  # it came, and was read
        prepare(request)
    assert (cache / "net.pth").read_bytes() == DATA
