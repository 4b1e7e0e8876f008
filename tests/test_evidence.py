"""The studies in docs/evidence: each file is read, and each run's config is valid."""

import pytest
from checkout import ROOT, needs_checkout

from resnest_d2 import get_config
from resnest_d2.study import read_study
from resnest_d2_command.parsers import build_parser

pytestmark = needs_checkout

FILES = sorted((ROOT / "docs" / "evidence").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_run_has_a_valid_config_and_a_fair_baseline(file, monkeypatch):
    monkeypatch.chdir(file.parent)  # where `study` starts its runs
    plan = read_study(file)
    configs = {}
    for run in plan.runs:
        args = build_parser().parse_args(run.command)
        cfg = get_config(args.config_file, args.opts)
        assert run.seed == cfg.SEED
        configs.setdefault(run.group, cfg)
    for baseline, other, *_ in plan.comparisons:
        for part in ("SOLVER", "INPUT", "TEST"):  # BGR or RGB is that of the backbone's weights
            ours, theirs = (configs[group].get(part).clone() for group in (baseline, other))
            for node in (ours, theirs):
                node.defrost()
                node.pop("FORMAT", None)
            assert ours == theirs, (baseline, other, part)


def test_pretrained_runs_are_those_without_pretraining_but_for_the_weights():
    alone, pretrained = (
        {run.label: set(run.arguments) for run in read_study(FILES[0].parent / name).runs}
        for name in ("nuclei.yaml", "nuclei_pretrained.yaml")
    )
    statistics = {"MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"}
    for name, arguments in pretrained.items():
        new = {text for text in arguments - alone[name] if not text.startswith("[")}
        group, seed = name.split("/")
        weights = f"../../output/evidence/classification/{group}/{seed}/model_final.pth"
        assert new == {*statistics, "MODEL.WEIGHTS", weights}
