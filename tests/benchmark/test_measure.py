"""Networks measured side by side: which, with what settings, what is counted; no times."""

import json
import re

import pytest
import torch
from PIL import Image
from torch import nn

from resnest_d2.benchmark import Subject, measure, part_times, peak_memory, saved_memory
from resnest_d2.modeling import VARIANTS
from resnest_d2.modeling.checkpointing import CheckpointedStage
from resnest_d2_command import main


def test_all_are_counted_and_run_in_turn():
    names = ["resnest14", "timm:resnest14d", "resnest50_fast_1s1x64d+channels_last"]
    ours, timm, fast = measure(names, size=(32, 64), runs=3, warmup=0, batch=2)
    assert [m.name for m in (ours, timm, fast)] == names
    assert ours.params == timm.params and ours.multiply_adds == timm.multiply_adds
    assert len(ours.latency_ms) == 3 and fast.ratios == (1.0, 1.0, 1.0)
    assert ours.ratios[1] == fast.latency_ms[1] / ours.latency_ms[1]
    assert ours.saved is None and not ours.parts_ms


def test_of_a_training_step_it_is_counted_what_is_kept():
    names = ["resnest14+recompute_norm", "resnest14+bfloat16", "resnest14"]

    def kept(side: int) -> list[int]:
        step = measure(names, size=(side, side), runs=1, warmup=0, batch=2, training=True)
        return [network.saved for network in step]

    small, large = kept(64), kept(96)
    less, half, plain = (b - a for a, b in zip(small, large, strict=True))  # without weights
    assert less < 0.7 * plain
    assert half < 0.6 * plain


def test_official_models_keep_as_much_as_ours():
    ours, official = measure(
        ["resnest50", "official:resnest50"], size=(64, 64), runs=1, warmup=0, batch=2, training=True
    )
    assert ours.params == official.params
    assert 0.95 * official.saved < ours.saved <= official.saved


def test_kept_memory_is_that_of_unique_storages_without_parameters():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1000))

        def forward(self, x):
            y = x * self.weight  # keeps x (and the weight)
            return y.exp() * y[:500].square().sum()  # keeps exp, y twice, and a sum

    x = torch.ones(1000, requires_grad=True)
    model = Twice()
    assert saved_memory(model, lambda: model(x)) == 3 * 4000 + 4


def test_peak_memory_is_of_the_call_alone():
    def call():
        sum(torch.ones(2**14) for _ in range(2**12))  # blocks that libc keeps when they are freed
        held = [torch.ones(2**14) for _ in range(2**12)]  # 256 MiB
        return len(held)

    measured = [peak_memory(call, "cpu") for _ in range(3)]
    assert all(240 * 2**20 < peak < 300 * 2**20 for peak in measured), measured


def test_settings_do_what_they_say():
    subject = Subject("resnest14+channels_last+recompute_norm+checkpointed", training=True)
    network = subject.prepare(subject.build()).network
    assert network.training and network.stem.recompute_norm
    assert isinstance(network.res2, CheckpointedStage)
    weight = network.res2[0].conv2.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    subject = Subject("resnest14+bfloat16")
    prepared = subject.prepare(subject.build())
    outputs = prepared.call(subject.inputs(1, (64, 64)))
    assert outputs["res5"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnest51"], "a network must be one of .*resnest50.*got 'resnest51'"),
        (["resnest50+quick"], "a setting of 'resnest50.quick' must be one of .*channels_last"),
        (["mine:resnest50"], "the source of 'mine:resnest50' must be one of .*official"),
        (["official:resnest14"], "an official network must be one of .*resnest269"),
        (["timm:resnest50"], "a network of timm must be one of .*resnest50d"),
        (["resnest14", "resnest14"], "measured once"),
        (["resnest14", "--reference", "resnest26"], "the reference must be one of .'resnest14'"),
        (["resnest14", "--size", "8", "8"], "at least 32 pixels"),
        (["resnest14+optimized", "--training"], "resnest14.optimized: .* cannot be trained"),
        (["resnet50", "--classifier"], "a network must be one of .*got 'resnet50'"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_choices(arguments, message, capsys):
    assert main(["benchmark", *arguments, "--runs", "0"]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_detector_is_timed_by_part_from_file_to_result():
    subject = Subject("retinanet_resnest50_fpn")
    model = subject.build()
    prepared = subject.prepare(model)
    parts = part_times(model, prepared.call, (64, 96), runs=1)
    assert list(parts)[:2] == ["decode", "preprocess"]
    assert {"backbone", "head", "inference", "rest"} <= set(parts)
    assert "forward" not in model.backbone.__dict__ and "preprocess_image" not in model.__dict__


def test_a_model_for_segmentation_is_counted_whole_and_timed_by_part():
    name = "fcn_resnest50_ade20k"
    (measured,) = measure([name], size=(32, 64), runs=1, warmup=0)
    assert list(measured.parts_ms) == ["decode", "preprocess", "backbone", "semantic head", "rest"]
    (backbone,) = measure(["resnest50"], size=(32, 64), runs=0)
    positions = 4 * 8  # of the last map, with a stride of 8
    head = positions * (2048 * 512 * 9 + 512 * 150)
    assert measured.multiply_adds > backbone.multiply_adds + head  # its backbone is dilated
    (step,) = measure([name], size=(32, 32), runs=1, warmup=0, batch=2, training=True)
    assert step.saved > 0


def test_a_classifier_is_the_network_with_its_linear_layer():
    name = "classify_resnest14"
    (measured,) = measure([name], size=(32, 64), runs=0)
    (network,) = measure(["resnest14"], size=(32, 64), runs=0, classifier=True)
    assert (measured.params, measured.multiply_adds) == (network.params, network.multiply_adds)
    (step,) = measure([name], size=(32, 32), runs=1, warmup=0, batch=2, training=True)
    assert step.saved > 0


def test_command_writes_table_json_and_chart(tmp_path, capsys):
    arguments = ["resnest14", "timm:resnest14d", "--classifier", "--size", "32", "64"]
    assert main(["benchmark", *arguments, "--runs", "2", "--json", "--out", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "benchmark.json").read_text())
    assert [m["name"] for m in printed["measurements"]] == arguments[:2]
    assert {"CPU", "AMX", "torch"} <= set(printed["environment"])
    table = (tmp_path / "benchmark.md").read_text()
    assert "| resnest14 " in table and "1 x 3 x 32 x 64" in table
    assert Image.open(tmp_path / "benchmark.png").width > 600


def counts(facts, capsys, names):
    assert main(["benchmark", *names, "--classifier", "--runs", "0", "--json"]) == 0
    known = facts("backbones")["models"]
    for m in json.loads(capsys.readouterr().out)["measurements"]:
        assert m["params"] == known[m["name"]]["params_with_1000_fc"], m["name"]
        assert m["multiply_adds"] == known[m["name"]]["conv_linear_macs_224"], m["name"]
    return names


def test_counts_are_the_published_ones(facts, capsys):
    counts(facts, capsys, ["resnest26", "resnest50_fast_4s2x40d"])


@pytest.mark.slow
def test_counts_of_all_variants_are_the_published_ones(facts, capsys):
    assert len(counts(facts, capsys, list(VARIANTS))) == 13
