"""Every format becomes the model it was, and back again, with no byte changed."""

import errno
import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import safetensors
import safetensors.torch
import torch
from checkout import ROOT, needs_checkout
from references import (
    TIMM_NAMES,
    build_reference,
    our_name,
    random_state,
    reference_names,
    reference_outputs,
    relative_error,
)
from torch import nn
from torchvision.ops import deform_conv2d

from detectron2.checkpoint import DetectionCheckpointer

from resnest_d2 import ResNeSt, __version__, get_config
from resnest_d2.checkpoint import (
    FORMATS,
    RECORD_KEY,
    convert,
    convert_file,
    describe,
    make_record,
    read_weights,
    recognise,
)
from resnest_d2.checkpoint.statistics import CLASSIFIER, weights_statistics
from resnest_d2.modeling import VARIANTS
from resnest_d2.modeling.build import meta_model
from resnest_d2_command import main

PREFIX = "backbone.bottom_up."


# ---- the formats, written by rules of their own ----


def rename(state: dict, rule) -> dict:
    return {rule(name): value for name, value in state.items()}


def without(state: dict, pattern: str) -> dict:
    return {name: value for name, value in state.items() if not re.search(pattern, name)}


def plugin_name(name: str) -> str:
    return re.sub(r"conv2\.conv\.conv_offset", "conv2_offset", our_name(name))


def mm_name(name: str) -> str:
    return re.sub(r"^bn1\.", "stem.7.", re.sub(r"^conv1\.(\d)\.", r"stem.\1.", name))


def as_official(state):
    return state


def as_first_plugin(state):
    return rename(without(state, r"^fc\."), plugin_name)


def as_second_plugin(state):
    return rename(as_first_plugin(state), lambda name: PREFIX + name)


def as_detector(state):
    names = ("backbone.fpn_lateral2.norm.bias", "proposal_generator.rpn_head.conv.weight")
    names += ("roi_heads.box_predictor.0.cls_score.weight", "sem_seg_head.predictor.bias")
    heads = {name: torch.full((3,), float(i)) for i, name in enumerate(names)}
    return {**as_second_plugin(state), **heads}


def as_mmdet(state):  # MMDetection's files lack the counters and the classifier
    return rename(without(state, r"^fc\.|num_batches_tracked"), mm_name)


def as_mmcls(state):
    return rename(
        without(state, "num_batches_tracked"),
        lambda name: f"head.{name}" if name.startswith("fc.") else f"backbone.{mm_name(name)}",
    )


def save_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_mm(state, path):
    torch.save({"meta": {"epoch": 1, "mmdet_version": "2.3.0"}, "state_dict": state}, path)


def save_detector(state, path):
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"model": state, "optimizer": optimizer, "iteration": 89999}, path)


# name -> (format, names, container, suffix)
SOURCES = {
    "official": ("official", as_official, save_legacy, "pth"),
    "timm .pth": ("timm", as_official, torch.save, "pth"),
    "timm .safetensors": ("timm", as_official, safetensors.torch.save_file, "safetensors"),
    "plugin, first generation": ("resnest_d2", as_first_plugin, save_legacy, "pth"),
    "plugin, second generation": ("detectron2", as_second_plugin, save_legacy, "pth"),
    "plugin detector": ("detectron2", as_detector, save_detector, "pth"),
    "mmdet": ("mmdet", as_mmdet, save_mm, "pth"),
    "mmcls": ("mmcls", as_mmcls, save_mm, "pth"),
}


class Detector(nn.Module):
    """Names of a Detectron2 model with an FPN, around a backbone."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.bottom_up = network


class Stock(DetectionCheckpointer):
    """Detectron2's own, which tells what it would log."""

    def _log_incompatible_keys(self, incompatible):
        self.incompatible = incompatible


def load_stock(path, network: nn.Module):
    """Fill a backbone through stock Detectron2; nothing of it may be missing."""
    checkpointer = Stock(Detector(network))
    checkpointer.load(str(path))
    incompatible = checkpointer.incompatible
    assert incompatible.missing_keys == [] and incompatible.incorrect_shapes == []
    return incompatible.unexpected_keys


def random_weights(reference: nn.Module) -> dict[str, torch.Tensor]:
    """By the reference's names, float32 as published files are."""
    names = {name: our_name(name) for name in reference.state_dict()}
    shapes = {names[name]: value.shape for name, value in reference.state_dict().items()}
    state = random_state(shapes, torch.float32)
    return {name: state[ours] for name, ours in names.items()}


def assert_same_tensors(actual: dict, expected: dict):
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and torch.equal(actual[name], value), name


def assert_same_features(network: nn.Module, reference: nn.Module, size=(65, 97)):
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        actual = network.double().eval()(x)
        expected = reference_outputs(reference.double().eval(), x)
    for name in ("res2", "res3", "res4", "res5"):
        assert relative_error(actual[name], expected[name]) < 1e-9, name


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path)  # pytest would keep some gigabytes


NUMERIC_BY_DEFAULT = {
    "resnest14": tuple(SOURCES),
    "resnest50": ("official",),
    "resnest50_fast_1s4x24d": ("mmcls", "timm .safetensors"),
}


@pytest.mark.parametrize(
    ("variant", "source"),
    [
        pytest.param(
            variant,
            source,
            marks=[] if source in NUMERIC_BY_DEFAULT.get(variant, ()) else pytest.mark.slow,
        )
        for variant in VARIANTS
        for source in SOURCES
        if not source.startswith("timm") or variant in TIMM_NAMES
    ],
)
def test_converted_features_equal_the_source_and_converting_back_gives_its_bytes(
    folder, variant, source
):
    format, names, save, suffix = SOURCES[source]
    kind = "timm" if format == "timm" else reference_names(variant)[0]
    with torch.device("meta"):
        reference = build_reference(kind, variant)
    state = random_weights(reference)
    reference.load_state_dict(state, assign=True)
    given = names(state)
    path, back = folder / f"source.{suffix}", folder / f"back.{suffix}"
    converted = folder / "d2.pth"
    save(given, path)
    expected = {name: value.clone() for name, value in given.items()}

    convert_file(path, converted)
    network = ResNeSt.from_variant(variant)
    unexpected = load_stock(converted, network)
    more = [n for n in expected if n.startswith(("roi_", "prop", "sem_", "backbone.fpn"))]
    if any("fc.weight" in name for name in expected if "conv2" not in name):
        more += [f"{PREFIX}linear.weight", f"{PREFIX}linear.bias"]
    assert sorted(unexpected) == sorted(more)
    assert_same_features(network, reference)

    convert_file(converted, back, target_format=format)
    assert_same_tensors(read_weights(back).tensors, expected)


@functools.cache
def meta_state(variant: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(build_reference(reference_names(variant)[0], variant).state_dict())


@functools.cache
def own_state(variant: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return ResNeSt.from_variant(variant, num_classes=1000).state_dict()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("source", SOURCES)
def test_names_and_shapes_become_the_networks_and_come_back(variant, source):
    format, names, _, _ = SOURCES[source]
    given = names(meta_state(variant))
    assert recognise(given) == {"timm": "official"}.get(format, format)
    own = own_state(variant)
    converted = convert(given, format, "resnest_d2")
    backbone = {name: value for name, value in converted.items() if name in own}
    assert {n: v.shape for n, v in backbone.items()} == {n: own[n].shape for n in backbone}
    lacking = [name for name in own if name not in backbone]
    assert all(re.search(r"^linear\.|num_batches_tracked$", name) for name in lacking)
    for target in FORMATS:
        if len(backbone) < len(converted) and target not in ("resnest_d2", "detectron2"):
            continue  # a detector
        there = convert(given, format, target)
        again = convert(there, target, format)
        assert len(there) == len(given) and again.keys() == given.keys()
        assert all(again[name] is value for name, value in given.items())


def test_names_are_those_of_the_published_key_lists(facts):
    keymaps = facts("keymaps")

    def shapes(group: str, *parts: str) -> dict[str, list[int]]:
        return {k: v for part in parts for k, v in keymaps[group][part].items()}

    official = shapes(
        "official_torch",
        "stem_and_head",
        "block_with_downsample_stride1_layer1.0",
        "block_with_downsample_stride2_layer2.0",
        "plain_block_layer2.1",
    )
    tensors = {name: torch.empty(shape, device="meta") for name, shape in official.items()}

    def converted(target: str, keep: str = "") -> dict[str, list[int]]:
        found = convert(tensors, "official", target).items()
        return {name: list(value.shape) for name, value in found if re.search(keep, name)}

    plugin = shapes(
        "d2_plugin_backbone",
        "stem",
        "block_shortcut_stride1_res2.0",
        "block_shortcut_stride2_res3.0",
        "plain_block_res3.1",
    )
    assert converted("resnest_d2", r"^(?!linear)") == plugin
    assert converted("mmdet", r"^stem") == keymaps["mmdet"]["stem"]
    blocks = {name: shape for name, shape in official.items() if name.startswith("layer")}
    assert converted("mmdet", r"^layer") == blocks
    assert converted("mmcls", r"^backbone\.layer") == {
        f"backbone.{n}": s for n, s in blocks.items()
    }


def test_a_published_detectors_heads_keep_their_names(facts):
    plugin = facts("keymaps")["d2_plugin_backbone"]
    heads = {**plugin["heads_mask_cascade_R50"], **plugin["heads_panoptic_extra"]}
    given = as_second_plugin(meta_state("resnest50"))
    given |= {name: torch.empty(shape, device="meta") for name, shape in heads.items()}
    assert recognise(given) == "detectron2"
    bare = convert(given, "detectron2", "resnest_d2")
    assert heads.keys() <= bare.keys() and "stem.conv1_1.weight" in bare
    assert recognise(bare) == "resnest_d2"
    assert convert(bare, "resnest_d2", "detectron2").keys() == given.keys()
    for target in ("official", "timm", "mmdet", "mmcls"):
        with pytest.raises(ValueError, match=f"{target} weights are a backbone's.*fpn_lateral2"):
            convert(given, "detectron2", target)


# ---- deformable convolutions ----


class Packed(nn.Module):
    """A deformable convolution with its offsets' inside, as MMCV packs it; the plugin's names have
    them beside it, and one offset convolution for each deformable group."""

    def __init__(self, conv: nn.Conv2d, groups: int, modulated: bool, grouped: bool):
        super().__init__()
        self.weight = conv.weight
        self.options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        self.modulated = modulated
        self.conv_offset = nn.Conv2d(
            conv.in_channels,
            groups * (27 if modulated else 18),
            kernel_size=conv.kernel_size,
            groups=groups if grouped else 1,
            device=conv.weight.device,
            **self.options,
        )

    def forward(self, x):
        offset, mask = self.conv_offset(x), None
        if self.modulated:
            first, second, mask = offset.chunk(3, dim=1)
            offset, mask = torch.cat((first, second), dim=1), mask.sigmoid()
        return deform_conv2d(x, offset, self.weight, mask=mask, **self.options)


def deformable_reference(variant: str, groups: int, modulated: bool, *, grouped: bool) -> nn.Module:
    with torch.device("meta"):
        reference = build_reference(reference_names(variant)[0], variant)
        for stage in (reference.layer2, reference.layer3, reference.layer4):
            for block in stage:
                block.conv2.conv = Packed(block.conv2.conv, groups, modulated, grouped)
    return reference


DEFORMABLE = [  # source, groups, modulated
    ("plugin, first generation", 2, True),
    ("plugin, second generation", 2, True),
    ("plugin, second generation", 1, True),
    ("plugin detector", 2, False),
    ("mmdet", 1, True),
    ("mmdet", 1, False),
    ("mmcls", 1, True),
]


@pytest.mark.parametrize(
    ("variant", "source", "groups", "modulated"),
    [
        pytest.param(v, *case, marks=[] if v == "resnest14" else pytest.mark.slow)
        for v in ("resnest14", "resnest50", "resnest50_fast_2s2x40d")
        for case in DEFORMABLE
    ],
)
def test_deformable_networks_convert_exactly_and_back(folder, variant, source, groups, modulated):
    format, names, save, _ = SOURCES[source]
    grouped = format not in ("mmdet", "mmcls")
    reference = deformable_reference(variant, groups, modulated, grouped=grouped)
    state = random_weights(reference)
    reference.load_state_dict(state, assign=True)
    network = ResNeSt.from_variant(
        variant,
        deform_on_per_stage=(False, True, True, True),
        deform_modulated=modulated,
        deform_num_groups=groups,
    )
    given = names(state)
    path, converted, back = folder / "source.pth", folder / "d2.pth", folder / "back.pth"
    save(given, path)
    assert f"deformable res3-res5 (v{1 + modulated}, {groups} group" in describe(given, format)

    convert_file(path, converted)
    load_stock(converted, network)
    assert_same_features(network, reference)
    with torch.no_grad():  # the offsets do matter
        network.res3[0].conv2_offset.bias += 1
    with pytest.raises(AssertionError, match="res3"):
        assert_same_features(network, reference)

    convert_file(converted, back, target_format=format)
    assert_same_tensors(read_weights(back).tensors, given)


@pytest.mark.parametrize("target", ["official", "timm", "mmdet", "mmcls"])
def test_offsets_that_the_target_cannot_have_are_refused(target):
    with torch.device("meta"):
        network = ResNeSt.from_variant(
            "resnest14",
            deform_on_per_stage=(False, False, True, True),
            deform_modulated=True,
            deform_num_groups=2,
        )
    reason = "no deformable" if target in ("official", "timm") else "has 2 deformable groups"
    with pytest.raises(ValueError, match=rf"{reason}|{reason}.*res4\.0\.conv2_offset\.weight"):
        convert(network.state_dict(), "resnest_d2", target)


def test_several_deformable_groups_of_mmcv_are_refused():
    state = deformable_reference("resnest14", 2, True, grouped=False).state_dict()
    given = as_mmdet(dict(state))
    with pytest.raises(ValueError, match=r"res3\.0\.conv2_offset\.weight of shape .54, 128, 3, 3"):
        convert(given, "mmdet", "detectron2")
    assert convert(given, "mmdet", "mmcls").keys() == {f"backbone.{name}" for name in given}


# ---- what is recognised, described and refused ----


def names_of(pattern: str, count: int) -> list[str]:
    return [pattern.format(i) for i in range(count)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "no ResNeSt's"),
        (lambda s: {"encoder.weight": 0, "decoder.weight": 0}, "decoder.weight, encoder.weight"),
        (lambda s: {**as_official(s), "aux.weight": 0}, "official weights, but for aux.weight"),
        (lambda s: {**as_mmdet(s), "backbone.x": 0}, "mmdet weights, but for backbone.x"),
        (lambda s: {**as_official(s), **as_mmdet(s)}, "mix those of official and mmdet"),
        (
            lambda s: {**as_first_plugin(s), **as_second_plugin(s)},
            "mix those of resnest_d2 and",
        ),
        (
            lambda s: {**as_second_plugin(s), "fc.weight": 0},
            "detectron2 weights, but for fc",
        ),
        (lambda s: without(s, r"^conv1|^bn1"), "no ResNeSt's|without split attention"),
        (lambda s: {f"x.{name}": v for name, v in s.items()}, "no ResNeSt's"),
        (
            lambda s: {**as_mmcls(s), "neck.lateral_convs.0.conv.weight": 0, "rpn_head.x": 0},
            "is an MMDetection detector .it has neck, rpn_head.*backbone can be converted",
        ),
        (
            lambda s: {**as_mmcls(s), "roi_head.bbox_head.0.fc_cls.weight": 0},
            "is an MMDetection detector .it has roi_head",
        ),
    ],
)
def test_unknown_and_mixed_names_are_refused_with_what_was_seen(change, message):
    names = change(meta_state("resnest14"))
    with pytest.raises(ValueError, match=message):
        recognise(names)
    for format in FORMATS:
        with pytest.raises(ValueError, match=message):
            convert(names, format, "resnest_d2")


def test_resnets_are_refused_by_name():
    torchvision = ["conv1.weight", "bn1.weight"]
    caffe2 = ["conv1_w", "res_conv1_bn_s"]
    bare = ["stem.conv1.weight", "stem.conv1.norm.weight"]
    for stage, blocks in enumerate((3, 4, 6, 3)):
        torchvision += names_of(f"layer{stage + 1}.{{}}.conv1.weight", blocks)
        torchvision += names_of(f"layer{stage + 1}.{{}}.conv2.weight", blocks)
        caffe2 += names_of(f"res{stage + 2}_{{}}_branch2a_w", blocks)
        bare += names_of(f"res{stage + 2}.{{}}.conv1.weight", blocks)
    for names in (torchvision, caffe2, bare, [f"backbone.{name}" for name in torchvision]):
        tensors = dict.fromkeys(names, torch.ones(1))
        with pytest.raises(ValueError, match="is a ResNet-50's, without split attention"):
            recognise(tensors)
        assert describe(tensors, "") == "ResNet-50 (no split attention)"
    detector = {f"{PREFIX}{name}": torch.ones(1) for name in bare}
    assert recognise(detector) == "detectron2"  # as a baseline's checkpoint is
    assert describe(detector, "detectron2") == "ResNet-50 (no split attention)"
    with pytest.raises(ValueError, match="is a ResNet-50's, without split attention"):
        convert(detector, "detectron2", "resnest_d2")


@pytest.mark.parametrize("variant", VARIANTS)
def test_networks_are_told_from_their_shapes(variant):
    arguments = VARIANTS[variant]
    radix, groups = arguments.get("radix", 2), arguments.get("num_groups", 1)
    state = meta_state(variant)
    for names in (as_official, as_second_plugin, as_detector, as_mmcls):
        given = names(state)
        text = describe(given, recognise(given))
        named, _, rest = text.partition(" (")
        assert variant in named.split(" or ")
        assert rest.startswith(f"radix {radix}, cardinality {groups})")
        assert ("1000 classes" in rest) == (names in (as_official, as_mmcls))
    assert "21841 classes" in describe({**state, "fc.weight": torch.ones(21841, 1)}, "official")


def test_description_of_unpublished_and_damaged_networks():
    with torch.device("meta"):
        state = ResNeSt(50, stem_width=48, bottleneck_width=32).state_dict()
    text = describe(state, "resnest_d2")
    assert "(3, 4, 6, 3) blocks, stem width 48, bottleneck width 32" in text
    state["res2.0.conv3.weight"] = torch.ones(3)
    assert "damaged" in describe(state, "resnest_d2")
    assert describe({"x": torch.ones(1)}, "") == "no ResNet or ResNeSt"


def test_formats_are_named_and_held_to():
    state = meta_state("resnest14")
    for arguments in (("torch", "timm"), ("timm", "torch")):
        with pytest.raises(ValueError, match="must be one of official, .* got 'torch'"):
            convert(state, *arguments)
    with pytest.raises(ValueError, match="are those of official weights, not of mmdet"):
        convert(state, "mmdet", "detectron2")
    assert convert(state, "timm", "official").keys() == state.keys()


def test_a_backbone_without_fpn_is_read():
    state = as_first_plugin(meta_state("resnest14"))
    given = {f"backbone.{name}": value for name, value in state.items()}
    assert recognise(given) == "detectron2"
    assert convert(given, "detectron2", "resnest_d2").keys() == state.keys()


# ---- files and the command ----


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of official names that converts in a moment: one block of each kind is enough."""
    state = {
        name: torch.randn(value.shape[:1] if value.dim() else ()) if value.dim() < 2 else value
        for name, value in ResNeSt.from_variant("resnest14", num_classes=10).state_dict().items()
    }
    path = tmp_path_factory.mktemp("small") / "net-12345678.pth"
    torch.save(convert(state, "resnest_d2", "official"), path)
    yield path
    path.unlink()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_converted_file_says_where_it_comes_from(small, tmp_path, suffix):
    target = tmp_path / f"out.{suffix}"
    convert_file(small, target, find_license=lambda sha256: f"licence of {sha256[:4]}")
    stored = read_weights(target)
    provenance = stored.metadata["provenance"]
    sha256 = subprocess.run(["sha256sum", small], capture_output=True, text=True).stdout.split()[0]
    assert provenance == {
        "source": "net-12345678.pth",
        "sha256": sha256,
        "format": "official",
        "converter": f"resnest_d2 {__version__}",
        "license": f"licence of {sha256[:4]}",
        "statistics": {
            "format": "RGB",
            "mean": list(CLASSIFIER.mean),
            "std": list(CLASSIFIER.std),
        },
    }
    assert stored.format == "detectron2" and weights_statistics(stored) == CLASSIFIER
    again = tmp_path / "again.pth"  # licence and statistics are the first file's for ever
    convert_file(target, again, target_format="mmdet")
    assert weights_statistics(read_weights(again)) == CLASSIFIER
    assert read_weights(again).metadata["provenance"]["license"] == provenance["license"]
    if suffix == "safetensors":
        with safetensors.safe_open(target, "pt") as file:
            assert json.loads(file.metadata()["provenance"]) == provenance


def test_a_runs_record_travels_along_and_nothing_else(small, tmp_path):
    cfg = get_config("mask_rcnn_resnest50_fpn", ["INPUT.FORMAT", "BGR"])
    record = make_record(cfg, ["cat"], [17])
    source, target = tmp_path / "run.pth", tmp_path / "out.safetensors"
    tensors = convert(read_weights(small).tensors, "official", "detectron2")
    torch.save({"model": tensors, RECORD_KEY: record, "iteration": 3}, source)
    convert_file(source, target)
    stored = read_weights(target)
    assert set(stored.metadata) == {"format", "provenance", RECORD_KEY}
    assert stored.metadata[RECORD_KEY] == record
    assert weights_statistics(stored).format == "BGR"
    assert stored.metadata["provenance"]["statistics"]["format"] == "BGR"

    torch.save({"model": tensors, RECORD_KEY: {**record, "note": 3}}, source)
    convert_file(source, target, overwrite=True)
    assert read_weights(target).metadata[RECORD_KEY] == record


def test_command_converts_and_says_what(small, tmp_path, capsys):
    target, back = tmp_path / "out.pth", tmp_path / "back.safetensors"
    assert main(["convert", str(small), str(target)]) == 0
    assert "resnest14 (radix 2, cardinality 1), 10 classes" in capsys.readouterr().out
    assert recognise(torch.load(target, weights_only=True)["model"]) == "detectron2"
    assert main(["convert", str(target), str(back), "--from", "detectron2", "--to", "timm"]) == 0
    assert_same_tensors(read_weights(back).tensors, read_weights(small).tensors)


def test_command_refuses_with_2_and_touches_nothing(small, tmp_path, capsys):
    old, page = tmp_path / "old.pth", tmp_path / "page.pth"
    old.write_bytes(b"precious")
    page.write_bytes(b"<html>404</html>")
    new = str(tmp_path / "new.pth")
    for arguments, message in (
        ([str(small), str(old)], "old.pth exists"),
        ([str(small), str(tmp_path / "new.bin")], "new.bin"),
        ([str(small), str(tmp_path / "no" / "new.pth")], "no folder"),
        ([str(tmp_path / "none.pth"), new], "none.pth"),
        ([str(page), new], "page.pth .*an HTML page"),
        ([str(small), new, "--from", "mmdet"], "net-12345678.pth is not converted.*official"),
    ):
        assert main(["convert", *arguments]) == 2
        assert re.search(message, capsys.readouterr().err)
    with pytest.raises(SystemExit) as refusal:
        main(["convert", str(small), new, "--to", "caffe"])
    assert refusal.value.code == 2
    assert sorted(tmp_path.iterdir()) == [old, page] and old.read_bytes() == b"precious"
    assert main(["convert", str(small), str(old), "--overwrite"]) == 0
    assert read_weights(old).format == "detectron2"


def test_command_fails_with_1_where_it_cannot_write(small, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "replace", fail)
    assert main(["convert", str(small), str(tmp_path / "new.pth")]) == 1
    assert "new.pth is not written: Read-only file system (fix that)" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@needs_checkout
def test_tool_is_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert.py", "none.pth", "out.pth"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as refusal:
        runpy.run_path(str(ROOT / "tools" / "convert.py"), run_name="__main__")
    assert refusal.value.code == 2 and "none.pth" in capsys.readouterr().err


def convert_without(state: dict, pattern: str, tmp_path, **beside) -> int:
    source = tmp_path / "part.pth"
    torch.save({"model": without(state, pattern), **beside}, source)
    return main(["convert", str(source), str(tmp_path / "out.pth"), "--overwrite"])


@pytest.mark.parametrize("name", ["official", "mmdet"])
def test_a_network_with_missing_tensors_is_converted_with_the_exit_code_3(tmp_path, capsys, name):
    state = ResNeSt.from_variant("resnest14", num_classes=2).state_dict()
    state = convert(state, "resnest_d2", name)
    norm = {"official": "bn1", "mmdet": "stem.7"}[name]
    assert convert_without(state, r"num_batches_tracked|^fc\.", tmp_path) == 0
    assert "not whole" not in capsys.readouterr().err
    for pattern, missing in (
        (r"^layer3\.0\.conv3\.weight", "layer3.0.conv3.weight"),
        (r"^layer2\.", "layer2.0.bn1.bias"),
        (rf"^{norm}\.running_var", f"{norm}.running_var"),
        (r"^layer4\.0\.downsample", "layer4.0.downsample.1.weight"),
    ):
        assert convert_without(state, pattern, tmp_path) == 3
        assert missing in capsys.readouterr().err


def test_a_detector_with_missing_parts_is_converted_with_the_exit_code_3(tmp_path, capsys):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", ["MODEL.DEVICE", "cpu"])
    state = meta_model(cfg).state_dict()
    state = {name: torch.zeros(value.shape) for name, value in state.items()}
    for pattern, missing in (
        (r"^proposal_generator", "proposal_generator."),
        (r"bbox_pred", "roi_heads.box_predictor.bbox_"),
        (r"fpn_output", "backbone.fpn_output"),
        (r"box_head\.fc1\.bias", "roi_heads.box_head.fc1.bias"),
        (r"res3\.0\.conv1", "backbone.bottom_up.res3.0.conv1.norm.bias"),
    ):
        assert convert_without(state, pattern, tmp_path) == 3, pattern
        assert missing in capsys.readouterr().err
    record = {RECORD_KEY: make_record(cfg, ["a"])}
    assert convert_without(state, "no such", tmp_path) == 0
    assert convert_without(state, "no such", tmp_path, **record) == 0
    assert convert_without(state, "mask_head", tmp_path, **record) == 3  # the config has masks
    assert "mask_head" in capsys.readouterr().err
