"""What optimising costs in AP, on a model that was trained."""

import pytest
from optimised import check_optimised_ap

from resnest_d2.cli.demo import run_demo
from resnest_d2.data import sample_set


@pytest.mark.slow  # some ten minutes
def test_the_demo_keeps_its_ap(tmp_path):
    run_demo(tmp_path)
    check_optimised_ap(tmp_path / "run", *sample_set()["val"], tmp_path / "optimised")
