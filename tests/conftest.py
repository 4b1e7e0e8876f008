"""What every test gets: seeds, one thread, and the shared data where it is there."""

import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

# Inputs are small. On a machine that does other work too, threads that wait for each other were
# measured to make the equality tests ten times slower.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_gpu_unless_marked(request, monkeypatch):
    """SyncBN and Detectron2's defaults depend on whether there is one."""
    if "gpu" not in request.keywords:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def offline(request, monkeypatch, tmp_path_factory):
    """No test reaches a mirror or the user's cache, nor do the processes that it starts."""
    if "network" not in request.keywords:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
        monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
        cache = tempfile.mkdtemp(prefix="cache-", dir=tmp_path_factory.getbasetemp())
        monkeypatch.setenv("FVCORE_CACHE", cache)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that RESNEST_D2_TEST_DATA names; the test is skipped where it is not set."""
    folder = os.environ.get("RESNEST_D2_TEST_DATA")
    if not folder:
        pytest.skip("RESNEST_D2_TEST_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def facts(test_data):
    """``facts(name)`` reads ``name.json`` from the facts beside the test data."""

    def read(name: str):
        file = test_data.parent / "facts" / f"{name}.json"
        if not file.is_file():
            pytest.skip(f"no {file}")
        return json.loads(file.read_text(encoding="utf-8"))

    return read
