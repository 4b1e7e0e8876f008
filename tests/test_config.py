"""The config contract: no default of Detectron2 moves, the recipes are the published ones."""

import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import yaml

import detectron2.model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.projects.deeplab import add_deeplab_config

from resnest_d2 import config as config_module
from resnest_d2.config import (
    ALIASES,
    KEYS,
    add_resnest_config,
    get_config,
    get_config_file,
    get_value,
    list_configs,
    move_old_keys,
    present_keys,
    read_config,
    set_value,
)

STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"

# our recipe -> the original plugin's file
ORIGINALS = {ours: original for original, ours in ALIASES.items()}
BASELINES = [name for name in ORIGINALS if "resnet" in name]

# Keys that the original plugin had too; the facts count them as differing from Detectron2.
PLUGIN_KEYS = {
    f"MODEL.RESNETS.{key}" for key in ("RADIX", "DEEP_STEM", "AVD", "AVG_DOWN", "BOTTLENECK_WIDTH")
}


DEEPLAB_KEYS = {
    *(f"SOLVER.POLY_LR_{name}" for name in ("POWER", "CONSTANT_ENDING")),
    *(f"MODEL.SEM_SEG_HEAD.ASPP_{name}" for name in ("CHANNELS", "DILATIONS", "DROPOUT")),
    *("MODEL.SEM_SEG_HEAD.LOSS_TYPE", "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS"),
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV",
}
OLD_KEYS = {"RESNEST.OPTIMIZER", "RESNEST.EMA.DECAY"}


def flat(node, prefix: str = "") -> dict:
    """Dotted key -> value of every leaf, tuples as lists."""
    leaves = {}
    for key, value in node.items():
        if isinstance(value, dict):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return leaves


def nested(leaves: dict) -> dict:
    tree = {}
    for key, value in leaves.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return tree


def plugin_cfg() -> CfgNode:
    cfg = get_cfg()
    add_resnest_config(cfg)
    return cfg


def own_keys() -> set:
    return set(flat(plugin_cfg())) - set(flat(get_cfg())) - PLUGIN_KEYS


def differences(cfg: CfgNode) -> dict:
    """What a config has other than Detectron2's defaults, without keys the original lacked."""
    defaults, ours = flat(get_cfg()), own_keys()
    return {
        key: value
        for key, value in flat(cfg).items()
        if key not in ours and (key not in defaults or defaults[key] != value)
    }


@pytest.fixture(scope="module")
def facts() -> dict:
    data = os.environ.get("RESNEST_D2_TEST_DATA")
    if not data:
        pytest.skip("RESNEST_D2_TEST_DATA is not set")
    return json.loads((Path(data).parent / "facts" / "recipes.json").read_text(encoding="utf-8"))


@pytest.fixture
def log_lines(monkeypatch) -> list:
    """Messages of the config module, whatever logging is set up around it."""
    lines = []
    assert config_module.logger.name == "resnest_d2.config"
    logger = logging.Logger("resnest_d2.config", logging.INFO)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    monkeypatch.setattr(config_module, "logger", logger)
    return lines


@pytest.fixture
def original_files(facts, tmp_path) -> dict:
    """The original plugin's YAML files, rebuilt as differences along their ``_BASE_`` chains."""
    configs, defaults = facts["configs"], flat(get_cfg())
    never_in_yaml = PLUGIN_KEYS - {"MODEL.RESNETS.RADIX"} | {STRIDE}
    files = {}
    for name, fact in configs.items():
        chain = fact["base_chain"]
        assert chain[-1] == name
        parent = chain[-2] if len(chain) > 1 else None
        above = configs[parent]["differs_from_d2_head_defaults"] if parent else {}
        here = fact["differs_from_d2_head_defaults"]
        delta = {k: v for k, v in here.items() if k not in never_in_yaml and above.get(k) != v}
        delta.update({k: defaults[k] for k in above if k not in here and k not in never_in_yaml})
        stated_above = configs[parent]["explicit_but_equal_to_head_default"] if parent else []
        for key in fact["explicit_but_equal_to_head_default"]:
            if key not in stated_above:
                delta[key] = defaults[key]
        if "MODEL.RESNETS.RADIX" in fact["keys_in_yaml_not_in_HEAD"]:
            delta["MODEL.RESNETS.RADIX"] = here["MODEL.RESNETS.RADIX"]
        else:
            delta.pop("MODEL.RESNETS.RADIX", None)
        tree = nested(delta)
        path = tmp_path / "original" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if parent:
            tree["_BASE_"] = os.path.relpath(tmp_path / "original" / parent, path.parent)
        else:
            tree["VERSION"] = 2
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        files[name] = path
    return files


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# ---- add_resnest_config ----


def test_no_detectron2_default_changes():
    before, after = flat(get_cfg()), flat(plugin_cfg())
    assert {key: after[key] for key in before} == before
    assert after[STRIDE] is True


def test_new_keys_stand_in_resnets_in_our_own_node_or_have_the_name_of_a_known_project():
    added = set(flat(plugin_cfg())) - set(flat(get_cfg()))
    assert PLUGIN_KEYS <= added
    elsewhere = {key for key in added if not key.startswith(("MODEL.RESNETS.", "RESNEST."))}
    assert elsewhere == {
        "SOLVER.BACKBONE_MULTIPLIER",  # Mask2Former
        "SOLVER.OPTIMIZER",  # Mask2Former, D2Go
        *("MODEL_EMA.ENABLED", "MODEL_EMA.DECAY"),  # D2Go
        "MODEL.SEM_SEG_HEAD.AUX_LOSS_WEIGHT",  # ours, beside LOSS_WEIGHT
        *DEEPLAB_KEYS,
    }


def test_the_keys_of_detectron2s_deeplab_project_have_its_defaults():
    theirs = get_cfg()
    add_deeplab_config(theirs)
    for key in DEEPLAB_KEYS:
        assert get_value(plugin_cfg(), key) == get_value(theirs, key), key
    add_deeplab_config(theirs)
    theirs.MODEL.SEM_SEG_HEAD.ASPP_CHANNELS = 8
    add_resnest_config(theirs)  # a project may call both, in any order
    assert theirs.MODEL.SEM_SEG_HEAD.ASPP_CHANNELS == 8


def test_the_table_of_keys_says_what_is_added_and_its_defaults():
    added = set(flat(plugin_cfg())) - set(flat(get_cfg()))
    keys = [key for group in KEYS.values() for key in group]
    assert len({key.name for key in keys}) == len(keys) == 71
    assert {key.name for key in keys} == added - OLD_KEYS | {"SOLVER.CLIP_GRADIENTS.CLIP_TYPE"}
    for key in keys:
        assert get_value(plugin_cfg(), key.name) == key.default, key
        assert key.meaning.endswith((".", ".)")) and not key.meaning.startswith(" "), key


@pytest.mark.parametrize("old", sorted(OLD_KEYS))
def test_an_old_key_is_moved_with_a_warning_wherever_it_is_stated(old, tmp_path):
    value, expected = {
        "RESNEST.OPTIMIZER": ("AdamW", {"SOLVER.OPTIMIZER": "AdamW"}),
        "RESNEST.EMA.DECAY": (0.9, {"MODEL_EMA.ENABLED": True, "MODEL_EMA.DECAY": 0.9}),
    }[old]
    file = write(tmp_path / "own.yaml", yaml.safe_dump(nested({old: value})))
    name = "mask_rcnn_resnest50_fpn"
    merged = plugin_cfg()
    merged.merge_from_file(str(file))  # as in a project on stock Detectron2
    set_in_python = get_config(name)
    set_value(set_in_python, old, value)
    for config, opts in (
        (file, ()),
        (name, (old, value)),
        (name, (old, str(value))),
        (merged, ()),
        (set_in_python, ()),
        (get_config(name), (old, value)),
    ):
        with pytest.warns(DeprecationWarning, match=f"{old} is now {next(iter(expected))}"):
            cfg, layers = read_config(config, opts)
        assert {key: get_value(cfg, key) for key in expected} == expected
        assert not any(old in layer for layer in layers)
        assert flat(cfg) == flat(read_config(cfg)[0])  # no second warning, nothing moves back


def test_of_old_and_present_keys_the_later_layer_wins(tmp_path):
    base = write(tmp_path / "base.yaml", "RESNEST: {OPTIMIZER: AdamW, EMA: {DECAY: 0.9}}\n")
    leaf = write(tmp_path / "leaf.yaml", "_BASE_: base.yaml\nSOLVER: {OPTIMIZER: SGD}\n")
    off = write(tmp_path / "off.yaml", "_BASE_: base.yaml\nRESNEST: {EMA: {DECAY: 0}}\n")
    with pytest.warns(DeprecationWarning):
        assert get_config(base).MODEL_EMA.ENABLED and get_config(base).SOLVER.OPTIMIZER == "AdamW"
        assert get_config(leaf).SOLVER.OPTIMIZER == "SGD"
        assert not get_config(off).MODEL_EMA.ENABLED
        assert get_config(leaf, ["RESNEST.OPTIMIZER", "AdamW"]).SOLVER.OPTIMIZER == "AdamW"
        opts = ["RESNEST.EMA.DECAY", "0.5", "MODEL_EMA.DECAY", "0.7"]
        assert get_config(leaf, opts).MODEL_EMA.DECAY == 0.7
    with pytest.raises(ValueError, match="RESNEST.EMA.DECAY must be a number, got 'half'"):
        get_config(leaf, ["RESNEST.EMA.DECAY", "half"])


@pytest.mark.parametrize("theirs", ["ADAMW", "adamw", "AdamW"])
def test_keys_of_mask2former_and_d2go_may_exist_before(theirs):
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = theirs
    cfg.MODEL_EMA = CfgNode({"ENABLED": True, "DECAY": 0.99, "DEVICE": ""})
    add_resnest_config(cfg)
    assert (cfg.SOLVER.OPTIMIZER, cfg.MODEL_EMA.DECAY) == (theirs, 0.99)
    read = read_config(cfg)[0]
    assert (read.SOLVER.OPTIMIZER, read.MODEL_EMA.DEVICE) == ("AdamW", "")


def test_defaults_of_the_original_plugins_keys_are_its_own(facts):
    values = flat(plugin_cfg())
    assert {key: values[key] for key in PLUGIN_KEYS} == {
        key: facts["keys_added_by_plugin_not_in_HEAD"][key] for key in PLUGIN_KEYS
    }


def test_adding_the_keys_twice_keeps_values_set_in_between():
    cfg = plugin_cfg()
    cfg.MODEL.RESNETS.RADIX = 4
    cfg.RESNEST.FREEZE_NORM.ITER = 7
    before = cfg.dump()
    add_resnest_config(cfg)
    assert cfg.dump() == before


# ---- packaged recipes ----


def test_every_published_recipe_is_here_under_a_name_of_its_own(facts):
    published = {name for name in facts["configs"] if "Base" not in name}
    assert set(ALIASES) == published and len(published) == 21
    assert len(set(ALIASES.values())) == 21
    assert set(ALIASES.values()) < set(list_configs())


@pytest.mark.parametrize("name", ORIGINALS)
def test_recipe_equals_the_published_one_key_by_key(name, facts):
    expected = dict(facts["configs"][ORIGINALS[name]]["differs_from_d2_head_defaults"])
    depth = get_config(name).MODEL.RESNETS.DEPTH
    if name in BASELINES:
        expected.pop(STRIDE, None)  # MSRA weights: True, Detectron2's default
        assert expected["MODEL.WEIGHTS"] == f"detectron2://ImageNetPretrained/MSRA/R-{depth}.pkl"
    else:
        assert f"/resnest{depth}_detectron-" in expected["MODEL.WEIGHTS"]
        expected["MODEL.WEIGHTS"] = f"resnest://resnest{depth}_detectron"
    if name.startswith("panoptic"):
        assert expected.pop("TEST.AUG.ENABLED") is True  # cannot work: off here
    assert differences(get_config(name)) == expected


@pytest.mark.parametrize("name", ORIGINALS)
def test_recipe_is_silent_about_our_own_keys(name):
    merged, defaults = flat(get_config(name)), flat(plugin_cfg())
    assert {key: merged[key] for key in own_keys()} == {key: defaults[key] for key in own_keys()}


@pytest.mark.parametrize("name", ORIGINALS)
def test_recipe_states_the_stride_that_its_weights_need(name, log_lines):
    stated = CfgNode.load_yaml_with_base(str(get_config_file(name)))
    assert stated["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is ("resnest" not in name)
    get_config(name)
    assert not log_lines


@pytest.mark.parametrize("name", BASELINES)
def test_baseline_differs_in_its_backbone_only(name):
    baseline = flat(get_config(name))
    recipe = flat(get_config(name.replace("resnet", "resnest")))
    assert {key for key in recipe if recipe[key] != baseline[key]} == {
        *("MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", STRIDE),
        *("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT"),
    }


def test_a_leaf_has_at_most_a_dozen_lines():
    for name in list_configs():
        if name.startswith(("sample_", "memorise_")):  # small models of their own, not of the zoo
            continue
        lines = get_config_file(name).read_text(encoding="utf-8").splitlines()
        said = [line for line in lines if line.strip() and not line.strip().startswith("#")]
        assert len(said) <= 12, name


def test_retinanet_has_the_values_of_detectron2s_own_recipe():
    """What differs is the backbone, and the batch norms that every recipe here synchronises."""
    ours = flat(get_config("retinanet_resnest50_fpn"))
    theirs = flat(detectron2.model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    read_by_others = ("MODEL.RPN.", "MODEL.ROI_")
    assert {
        key for key in theirs if ours[key] != theirs[key] and not key.startswith(read_by_others)
    } == {
        *("MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", STRIDE, "MODEL.RESNETS.NORM", "MODEL.FPN.NORM"),
        *("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT", "TEST.PRECISE_BN.ENABLED"),
    }


@pytest.mark.parametrize(
    ("name", "theirs", "base"),
    [
        (
            "keypoint_rcnn_resnest50_fpn",
            "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
            "faster_rcnn_resnest50_fpn",
        ),
        (
            "panoptic_fpn_resnest50",
            "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
            "mask_rcnn_resnest50_fpn",
        ),
    ],
)
def test_a_task_changes_what_detectron2s_own_recipe_changes_for_it(name, theirs, base):
    ours, base = flat(get_config(name)), flat(get_config(base))
    task = flat(detectron2.model_zoo.get_config(theirs))
    plain = flat(detectron2.model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"))
    changed = {key: task[key] for key in task if task[key] != plain[key]}
    assert changed and {key: ours[key] for key in changed} == changed
    further = {key for key in base if ours[key] != base[key]} - set(changed)
    assert further <= {
        *("INPUT.MIN_SIZE_TRAIN", "INPUT.MIN_SIZE_TRAIN_SAMPLING"),
        *("MODEL.ROI_MASK_HEAD.NORM", "MODEL.SEM_SEG_HEAD.NORM"),
    }


def test_large_scale_jitter_keeps_all_but_the_scales_and_detectron2s_long_schedule():
    ours, base = (flat(get_config(f"mask_rcnn_resnest50_fpn{tail}")) for tail in ("_lsj", ""))
    changed = {key: ours[key] for key in ours if ours[key] != base[key]}
    assert changed.pop("RESNEST.JITTER.SIZE") == 1024 and ours["RESNEST.JITTER.SCALE"] == [0.1, 2.0]
    assert all(key.startswith("SOLVER.") for key in changed)
    theirs = detectron2.model_zoo.get_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py")
    schedule = theirs.lr_multiplier
    assert ours["SOLVER.MAX_ITER"] == theirs.train.max_iter
    assert ours["SOLVER.STEPS"] == list(schedule.scheduler.milestones)
    assert ours["SOLVER.WARMUP_ITERS"] == round(schedule.warmup_length * theirs.train.max_iter)
    assert ours["SOLVER.WARMUP_FACTOR"] == schedule.warmup_factor
    assert ours["SOLVER.BASE_LR"] == theirs.optimizer.lr
    assert ours["SOLVER.WEIGHT_DECAY"] == theirs.optimizer.weight_decay
    assert ours["SOLVER.IMS_PER_BATCH"] == theirs.dataloader.train.total_batch_size


def test_fine_tuning_keeps_the_network_and_freezes_every_norm():
    ours, base = (flat(get_config(f"{head}mask_rcnn_resnest50_fpn")) for head in ("finetune_", ""))
    network = {
        key for key in ours if key.startswith(("MODEL.", "INPUT.")) and ours[key] != base[key]
    }
    norms = {key for key in network if key.endswith(".NORM")}
    assert network == norms | {"MODEL.WEIGHTS"}
    assert {base[key] for key in norms} == {"SyncBN"} and {ours[key] for key in norms} == {
        "FrozenBN"
    }
    assert "SyncBN" not in ours.values()
    scaled = base["SOLVER.BASE_LR"] * ours["SOLVER.IMS_PER_BATCH"] / base["SOLVER.IMS_PER_BATCH"]
    assert ours["SOLVER.BASE_LR"] == pytest.approx(scaled / 5)
    assert {key: ours[key] for key in ours if ours[key] != base[key] and key not in network} == {
        "DATASETS.TRAIN": [],
        "DATASETS.TEST": [],
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.BASE_LR": 0.001,
        "SOLVER.WARMUP_ITERS": 200,
        "SOLVER.STEPS": [2000, 2700],
        "SOLVER.MAX_ITER": 3000,
        "SOLVER.CHECKPOINT_PERIOD": 500,
        "TEST.EVAL_PERIOD": 500,
        "TEST.PRECISE_BN.ENABLED": False,
    }


def test_list_names_every_recipe_and_no_base():
    assert set(ORIGINALS) < set(list_configs())
    assert list_configs() == sorted(list_configs())
    assert not any(name.startswith("Base") or name.endswith(".yaml") for name in list_configs())


def test_every_packaged_config_loads_unfrozen_and_survives_a_dump(tmp_path):
    for name in list_configs():
        cfg = get_config(name)
        assert not cfg.is_frozen()
        dumped = write(tmp_path / f"{name}-dump.yaml", cfg.dump())
        assert flat(get_config(dumped)) == flat(cfg)


def test_sample_recipe_trains_from_scratch_with_resnest_statistics():
    cfg = get_config("sample_mask_rcnn_resnest14_fpn")
    assert cfg.MODEL.WEIGHTS == "" and cfg.MODEL.BACKBONE.FREEZE_AT == 0
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 5 and cfg.MODEL.RESNETS.DEPTH == 14
    assert cfg.INPUT.FORMAT == "RGB" and cfg.INPUT.MASK_FORMAT == "bitmask"
    assert cfg.MODEL.PIXEL_STD == get_config("mask_rcnn_resnest50_fpn").MODEL.PIXEL_STD
    norms = {value for key, value in flat(cfg).items() if key.endswith(".NORM")}
    assert "SyncBN" not in norms


# ---- files of the original plugin ----


def test_original_files_load_unchanged_with_stock_merge(original_files, facts):
    assert len(original_files) == 24
    for name, path in original_files.items():
        cfg = plugin_cfg()
        cfg.merge_from_file(str(path))
        merged, expected = differences(cfg), facts["configs"][name]["differs_from_d2_head_defaults"]
        assert merged == {k: v for k, v in expected.items() if k != STRIDE}, name


def test_get_config_restores_the_originals_stride_for_resnest_only(
    original_files, facts, log_lines
):
    for name, path in original_files.items():
        log_lines.clear()
        cfg = get_config(path)
        expected = dict(facts["configs"][name]["differs_from_d2_head_defaults"])
        if cfg.MODEL.BACKBONE.NAME.startswith("build_resnest"):
            assert len(log_lines) == 1 and STRIDE in log_lines[0]
        else:
            expected.pop(STRIDE, None)
            assert not log_lines
        assert differences(cfg) == expected, name


def test_a_stated_stride_is_kept(tmp_path, log_lines):
    silent = write(
        tmp_path / "silent.yaml", "VERSION: 2\nMODEL: {BACKBONE: {NAME: build_resnest_backbone}}\n"
    )
    stated = write(
        tmp_path / "stated.yaml",
        "_BASE_: silent.yaml\nMODEL: {RESNETS: {STRIDE_IN_1X1: True, AVD: False}}\n",
    )
    assert get_config(stated).MODEL.RESNETS.STRIDE_IN_1X1 is True
    assert get_config(silent, [STRIDE, "True"]).MODEL.RESNETS.STRIDE_IN_1X1 is True
    assert not log_lines
    assert get_config(silent).MODEL.RESNETS.STRIDE_IN_1X1 is False
    resnet = ["MODEL.BACKBONE.NAME", "build_resnet_backbone"]
    assert get_config(silent, resnet).MODEL.RESNETS.STRIDE_IN_1X1 is True


# ---- names, paths, options ----


def test_names_work_from_any_folder_with_and_without_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mask_rcnn_resnest50_fpn.yaml", "VERSION: 2\nSEED: 5\n")
    name = "mask_rcnn_resnest50_fpn"
    expected = get_config(name)
    assert expected.SEED == -1
    assert get_config(f"{name}.yaml") == expected
    assert get_config(f"./{name}.yaml").SEED == 5


@pytest.mark.parametrize("original", ALIASES)
def test_an_original_file_name_means_our_recipe(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = get_config_file(ALIASES[original])
    bare = original.rpartition("/")[2]
    for name in (original, bare, original.removesuffix(".yaml"), bare.removesuffix(".yaml")):
        assert get_config_file(name) == expected, name
        assert get_config_file(Path(name)) == expected, name


def test_a_file_of_an_original_name_comes_before_the_alias(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original = next(iter(ALIASES))
    bare = original.rpartition("/")[2]
    (tmp_path / original).parent.mkdir()
    for name, seed in ((original, 5), (bare, 6)):
        write(tmp_path / name, f"VERSION: 2\nSEED: {seed}\n")
        assert get_config(name).SEED == seed
    with pytest.raises(FileNotFoundError, match="elsewhere"):  # not there, so not meant
        get_config(f"elsewhere/{bare}")


def test_a_base_is_found_beside_its_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "base.yaml", "VERSION: 2\nSEED: 5\n")
    write(tmp_path / "deep" / "own.yaml", "_BASE_: ../base.yaml\nOUTPUT_DIR: elsewhere\n")
    monkeypatch.chdir(tmp_path / "deep")
    cfg = get_config("own.yaml")
    assert (cfg.SEED, cfg.OUTPUT_DIR) == (5, "elsewhere")


def test_a_file_of_version_1_is_upgraded(tmp_path):
    old = write(tmp_path / "old.yaml", "VERSION: 1\nMODEL: {WEIGHT: w.pkl}\nTEST: {AUG_ON: True}\n")
    cfg = get_config(old)
    assert (cfg.MODEL.WEIGHTS, cfg.TEST.AUG.ENABLED, cfg.VERSION) == ("w.pkl", True, 2)


def test_configs_are_found_inside_an_installed_package(tmp_path):
    package = tmp_path / "site" / "resnest_d2"
    package.mkdir(parents=True)
    shutil.copy(config_module.__file__, package)
    shutil.copytree(get_config_file("faster_rcnn_resnet50_fpn").parent, package / "configs")
    spec = importlib.util.spec_from_file_location("installed_config", package / "config.py")
    installed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installed)
    assert installed.get_config_file("mask_rcnn_resnest50_fpn").parent == package / "configs"
    assert installed.list_configs() == list_configs()
    shutil.rmtree(package / "configs")
    with pytest.raises(FileNotFoundError, match="has no configs"):
        installed.list_configs()


def test_options_are_detectron2s_pairs():
    cfg = get_config(
        "mask_rcnn_resnest50_fpn", ["SOLVER.BASE_LR", "1e-3", "MODEL.RESNETS.RADIX", 4]
    )
    assert (cfg.SOLVER.BASE_LR, cfg.MODEL.RESNETS.RADIX) == (1e-3, 4)
    assert get_config("mask_rcnn_resnest50_fpn").MODEL.RESNETS.RADIX == 2


@pytest.mark.parametrize("name", ["mask_rcnn_resnest50", "mask_rcnn_resnest50.yaml"])
def test_unknown_name_gets_the_nearest_and_all_names(name):
    with pytest.raises(KeyError) as caught:
        get_config(name)
    message = caught.value.args[0]
    assert repr(name) in message
    assert "Nearest: mask_rcnn_resnest50_fpn" in message
    assert all(available in message for available in list_configs())


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        get_config(tmp_path / "nowhere" / "own.yaml")
    orphan = write(tmp_path / "orphan.yaml", "_BASE_: missing.yaml\n")
    with pytest.raises(FileNotFoundError, match="missing.yaml"):
        get_config(orphan)


def test_unknown_key_is_named_with_its_neighbours(tmp_path):
    with pytest.raises(KeyError, match="opts: MODEL.RADIX. Nearest: MODEL.RESNETS.RADIX"):
        get_config("mask_rcnn_resnest50_fpn", ["MODEL.RADIX", "4"])
    with pytest.raises(KeyError, match="SOLVER.BASE_LRR. Nearest: SOLVER.BASE_LR"):
        get_config("mask_rcnn_resnest50_fpn", ["SOLVER.BASE_LRR", "4"])
    own = write(tmp_path / "own.yaml", "MODEL:\n  RESNETS:\n    RADIUS: 2\n    DEPHT: 50\n")
    with pytest.raises(KeyError) as caught:
        get_config(own)
    message = caught.value.args[0]
    assert str(own) in message
    assert "MODEL.RESNETS.RADIUS" in message and "Nearest: MODEL.RESNETS.DEPTH" in message


@pytest.mark.parametrize("opts", [["SEED"], "SEED", {"SEED": 1}, ["MODEL.DEVICE=cpu"]])
def test_options_not_in_pairs_are_refused(opts):
    with pytest.raises(ValueError, match="pairs"):
        get_config("mask_rcnn_resnest50_fpn", opts)


def test_value_of_a_wrong_type_is_refused_with_its_key():
    with pytest.raises(ValueError, match="MODEL.RESNETS.RADIX"):
        get_config("mask_rcnn_resnest50_fpn", ["MODEL.RESNETS.RADIX", "two"])


@pytest.mark.parametrize(
    "text", ["", "- SEED\n", "SEED: [\n", "VERSION: 3\n", "_BASE_: bad.yaml\n"]
)
def test_unreadable_file_is_refused_with_its_name(text, tmp_path):
    with pytest.raises(ValueError, match="bad.yaml"):
        get_config(write(tmp_path / "bad.yaml", text))


def test_python_tags_are_not_executed(tmp_path):
    trace = tmp_path / "trace"
    evil = write(tmp_path / "evil.yaml", f"SEED: !!python/object/apply:os.mkdir ['{trace}']\n")
    with pytest.raises(ValueError, match="Python tags"):
        get_config(evil)
    assert not trace.exists()


def test_old_keys_are_moved_once_and_an_impossible_decay_is_not_hidden():
    cfg = get_cfg()
    add_resnest_config(cfg)
    cfg.RESNEST.OPTIMIZER, cfg.RESNEST.EMA.DECAY = "AdamW", -0.5
    with pytest.warns(DeprecationWarning):
        move_old_keys(cfg)
    assert (cfg.SOLVER.OPTIMIZER, cfg.MODEL_EMA.ENABLED, cfg.MODEL_EMA.DECAY) == (
        "AdamW",
        True,
        -0.5,
    )
    cfg.SOLVER.OPTIMIZER = "SGD"
    move_old_keys(cfg)
    assert cfg.SOLVER.OPTIMIZER == "SGD"
    assert present_keys({"RESNEST.EMA.DECAY": 0.0}) == {"MODEL_EMA.ENABLED": False}
