"""The LazyConfig recipes: the same models, values and results as the YAML ones, and their tool."""

import json
import logging
import pickle
import signal
from types import FunctionType

import cloudpickle
import numpy as np
import pytest
import torch
from checkout import load_tool, needs_checkout
from omegaconf import ListConfig

from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils.events import EventStorage

from resnest_d2.config import get_config, get_lazy_config
from resnest_d2.data import build_train_mapper, register_coco, sample_set
from resnest_d2.data.batches.mapper import ImageMapper
from resnest_d2.engine import RunRequest, Trainer, prepare_lazy, run_lazy
from resnest_d2.engine.training.steps import TrainingStep
from resnest_d2.modeling.norm import convert_sync_batchnorm

FAMILIES = ("faster_rcnn", "cascade_rcnn", "mask_rcnn", "cascade_mask_rcnn")
RECIPES = [f"{family}_resnest50_fpn" for family in FAMILIES]

TINY = (  # as shrink() below
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.STEM_WIDTH", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.CONV_DIM", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
)


def shrink(cfg):
    """The LazyConfig's network at the widths of TINY; nothing else changes."""
    model = cfg.model
    model.backbone.bottom_up.update(width_per_group=4, res2_out_channels=16, stem_width=4)
    model.backbone.out_channels = model.proposal_generator.head.in_channels = 16
    heads = model.roi_heads
    cascade = "box_heads" in heads
    for box_head in heads.box_heads if cascade else [heads.box_head]:
        box_head.update(input_shape=ShapeSpec(channels=16, height=7, width=7))
        box_head.update(conv_dims=[16] * 4, fc_dims=[16])
    for predictor in heads.box_predictors if cascade else [heads.box_predictor]:
        predictor.input_shape = ShapeSpec(channels=16)
    if "mask_head" in heads:
        heads.mask_head.input_shape = ShapeSpec(channels=16, height=14, width=14)
        heads.mask_head.conv_dims = [16] * 5
    return cfg


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    files = sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=4, val_images=2
    )
    return {split: register_coco(*pair) for split, pair in files.items()}


@pytest.fixture(scope="module")
def examples(data):
    """Training examples of 64 pixels, with masks as bitmaps."""
    opts = ["INPUT.MASK_FORMAT", "bitmask", "INPUT.MIN_SIZE_TRAIN", "(64,)"]
    mapper = build_train_mapper(get_config("mask_rcnn_resnest50_fpn", opts))
    return [mapper(record) for record in DatasetCatalog.get(data["train"])[:2]]


@pytest.fixture(scope="module", params=RECIPES)
def pair(request):
    """The same small model from YAML and from the LazyConfig, with the same random weights."""
    yaml = build_model(get_config(request.param, TINY))
    lazy = instantiate(shrink(get_lazy_config(request.param)).model)
    yaml, lazy = convert_sync_batchnorm(yaml), convert_sync_batchnorm(lazy)
    generator = torch.Generator().manual_seed(0)
    for key, value in yaml.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif key.endswith("norm.weight") or ".bn" in key and key.endswith("weight"):
            value.uniform_(0.8, 1.2, generator=generator)
        elif "cls_score" in key:  # a random classifier is never sure enough to be asked
            value.normal_(std=5, generator=generator)
    incompatible = lazy.load_state_dict(yaml.state_dict(), strict=False)
    assert not incompatible.missing_keys and not incompatible.unexpected_keys
    return yaml, lazy


@pytest.fixture(scope="module", params=RECIPES)
def full(request):
    """The same model from YAML and from the LazyConfig, at its real size and without memory."""
    with torch.device("meta"):
        yaml = build_model(get_config(request.param, ["MODEL.DEVICE", "meta"]))
        lazy = instantiate(get_lazy_config(request.param).model)
        return convert_sync_batchnorm(yaml), convert_sync_batchnorm(lazy)


def plain(value):
    """A setting as plain types, so that a list equals a tuple, and a matcher its twin."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, ListConfig)):
        return [plain(item) for item in value]
    if isinstance(value, torch.nn.Module):
        return type(value).__qualname__
    if isinstance(value, (type, FunctionType)):
        return value.__qualname__
    if hasattr(value, "__dict__"):
        return [type(value).__qualname__, plain(vars(value))]
    return value


def settings(model) -> dict:
    """Every module's type and public attributes: sizes, thresholds, weights of losses, …"""
    found = {}
    for name, module in model.named_modules():
        found[name] = plain(module)
        for key, value in vars(module).items():
            if key == "loss_weight" and isinstance(value, dict):
                value = {loss: weight for loss, weight in value.items() if weight != 1}  # default
            if not key.startswith("_"):
                found[f"{name}.{key}"] = plain(value)
    return found


# ---- the same model ----


def test_yaml_and_lazy_have_the_same_state_dict(full):
    yaml, lazy = ({k: v.shape for k, v in m.state_dict().items()} for m in full)
    assert list(yaml) == list(lazy)
    assert yaml == lazy


def test_yaml_and_lazy_have_the_same_settings(full):
    yaml, lazy = map(settings, full)
    assert {key: lazy.get(key) for key in yaml} == yaml
    assert yaml.keys() == lazy.keys()
    assert yaml["proposal_generator.nms_thresh"] == 0.7  # the comparison reaches such values


def test_yaml_and_lazy_freeze_the_same_weights(full):
    frozen = [[k for k, p in m.named_parameters() if not p.requires_grad] for m in full]
    assert frozen[0] == frozen[1] and frozen[0]


def test_yaml_and_lazy_detect_the_same(pair, examples):
    yaml, lazy = (model.eval() for model in pair)
    torch.manual_seed(1)
    inputs = [{"image": torch.rand(3, h, w) * 255} for h, w in ((96, 128), (128, 70))]
    inputs += [{"image": example["image"]} for example in examples]
    with torch.no_grad():
        for ours, theirs in zip(lazy(inputs), yaml(inputs), strict=True):
            ours, theirs = ours["instances"], theirs["instances"]
            assert len(theirs) > 0
            assert ours.get_fields().keys() == theirs.get_fields().keys()
            for field, expected in theirs.get_fields().items():
                actual = getattr(ours, field)
                if field == "pred_boxes":
                    actual, expected = actual.tensor, expected.tensor
                assert torch.equal(actual, expected), field


def test_yaml_and_lazy_learn_the_same(pair, examples):
    """Equal losses: the same anchors, samples, weights of losses, and boxes to regress to."""
    losses = []
    for model in pair:
        model.train()
        torch.manual_seed(2)
        with EventStorage():
            losses.append({key: value.item() for key, value in model(examples).items()})
    assert losses[0] == losses[1]
    assert all(np.isfinite(value) for value in losses[0].values())
    assert len(losses[0]) == len(set(losses[0].values()))


# ---- the same values ----


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_and_lazy_optimise_alike(name):
    cfg, lazy = get_config(name, TINY), get_lazy_config(name)
    model = build_model(cfg)
    theirs = Trainer.build_optimizer(cfg, model)
    lazy.optimizer.params.model = model
    ours = instantiate(lazy.optimizer)
    settings = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def groups(optimizer):
        return [
            {**{key: group[key] for key in settings}, "params": [id(p) for p in group["params"]]}
            for group in optimizer.param_groups
        ]

    assert groups(ours) == groups(theirs)
    multiplier = instantiate(lazy.lr_multiplier)
    yaml_multiplier = build_lr_scheduler(cfg, theirs)._multiplier
    assert lazy.train.max_iter == cfg.SOLVER.MAX_ITER == 90000
    for step in (0, 1, 500, 999, 1000, 59999, 60000, 79999, 80000, 89999):
        where = step / lazy.train.max_iter
        assert multiplier(where) == pytest.approx(yaml_multiplier(where), rel=1e-9), step


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_and_lazy_see_the_same_images(name, data):
    cfg, lazy = get_config(name, ["INPUT.MASK_FORMAT", "bitmask"]), get_lazy_config(name)
    assert lazy.dataloader.train.mapper.get("instance_mask_format", "polygon") == "polygon"
    lazy.dataloader.train.mapper.instance_mask_format = "bitmask"
    mappers = build_train_mapper(cfg), instantiate(lazy.dataloader.train.mapper)
    sizes = set()
    for seed, record in enumerate(DatasetCatalog.get(data["train"]) * 3):
        seen = []
        for mapper in mappers:
            np.random.seed(seed)
            seen.append(mapper(record))
        theirs, ours = seen
        sizes.add(min(ours["image"].shape[1:]))
        assert torch.equal(ours["image"], theirs["image"])
        ours, theirs = ours["instances"], theirs["instances"]
        assert ours.get_fields().keys() == theirs.get_fields().keys()
        assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
        assert ours.has("gt_masks") == cfg.MODEL.MASK_ON
    assert len(sizes) > 3 and min(sizes) >= 640 and max(sizes) <= 800
    test_mapper = instantiate(lazy.dataloader.test.mapper)
    image = test_mapper(DatasetCatalog.get(data["val"])[0])["image"]
    assert image.shape == (3, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST)
    assert test_mapper.image_format == cfg.INPUT.FORMAT
    for augmentations in (
        lazy.dataloader.train.mapper.augmentations,
        test_mapper.augmentations.augs,
    ):
        assert augmentations[0].max_size == cfg.INPUT.MAX_SIZE_TRAIN == cfg.INPUT.MAX_SIZE_TEST


@pytest.mark.parametrize("name", RECIPES)
def test_yaml_and_lazy_run_alike(name):
    cfg, lazy = get_config(name), get_lazy_config(name)
    train, dataloader = lazy.train, lazy.dataloader
    assert train.init_checkpoint == cfg.MODEL.WEIGHTS
    assert train.eval_period == cfg.TEST.EVAL_PERIOD
    assert train.checkpointer.period == cfg.SOLVER.CHECKPOINT_PERIOD
    precise_bn = cfg.TEST.PRECISE_BN
    assert train.precise_bn == {"enabled": precise_bn.ENABLED, "num_iter": precise_bn.NUM_ITER}
    assert train.amp.enabled == cfg.SOLVER.AMP.ENABLED
    assert dataloader.train.total_batch_size == cfg.SOLVER.IMS_PER_BATCH
    assert dataloader.train.num_workers == cfg.DATALOADER.NUM_WORKERS
    assert (dataloader.train.dataset.names,) == cfg.DATASETS.TRAIN
    assert (dataloader.test.dataset.names,) == cfg.DATASETS.TEST
    assert ("segm" in dataloader.evaluator.tasks) == cfg.MODEL.MASK_ON


# ---- runs ----


@pytest.fixture
def tool():
    return load_tool("lazyconfig_train_net").main


@pytest.fixture
def config_file(tmp_path):
    """A config file as a user writes it: it starts from a packaged one."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from detectron2.layers import ShapeSpec\n"
        "from resnest_d2.config import get_lazy_config\n"
        "cfg = get_lazy_config('mask_rcnn_resnest50_fpn')\n"
        "model, dataloader, optimizer = cfg.model, cfg.dataloader, cfg.optimizer\n"
        "lr_multiplier, train = cfg.lr_multiplier, cfg.train\n"
        "del cfg\n"
        "model.backbone.bottom_up.update(\n"
        "    width_per_group=4, res2_out_channels=16, stem_width=4, freeze_at=0)\n"
        "model.backbone.out_channels = model.proposal_generator.head.in_channels = 16\n"
        "heads = model.roi_heads\n"
        "heads.num_classes = 5\n"
        "heads.box_head.update(input_shape=ShapeSpec(channels=16, height=7, width=7),\n"
        "    conv_dims=[16], fc_dims=[16])\n"
        "heads.box_predictor.input_shape = ShapeSpec(channels=16)\n"
        "heads.mask_head.update(input_shape=ShapeSpec(channels=16, height=14, width=14),\n"
        "    conv_dims=[16, 16])\n"
        "del heads\n"
        "dataloader.train.mapper.instance_mask_format = 'bitmask'\n"
        "dataloader.train.mapper.augmentations[0].short_edge_length = 64\n"
        "dataloader.test.mapper.augmentations[0].short_edge_length = 64\n"
        "dataloader.train.update(num_workers=0, total_batch_size=2)\n"
        "dataloader.test.num_workers = 0\n"
        "train.update(init_checkpoint='', max_iter=2, precise_bn=dict(enabled=True, num_iter=2))\n"
    )
    return file


@pytest.fixture
def arguments(config_file, data, tmp_path):
    return [
        *("--config-file", str(config_file), "--output-json", str(tmp_path / "results.json")),
        f"train.output_dir={tmp_path / 'run'}",
        f"dataloader.train.dataset.names={data['train']}",
        f"dataloader.test.dataset.names={data['val']}",
    ]


@needs_checkout
def test_tool_trains_evaluates_and_resumes_on_the_cpu(tool, arguments, tmp_path, caplog, capsys):
    with caplog.at_level("INFO", logger="resnest_d2"):
        assert tool(arguments) == 0
    messages = [record.getMessage() for record in caplog.records]
    assert any("No GPU found: train.device is now 'cpu'" in message for message in messages)
    assert any("SyncBN in one process" in message for message in messages)
    run = tmp_path / "run"
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"bbox", "segm"}
    first = torch.load(run / "model_final.pth", weights_only=True)
    assert first["iteration"] == 1
    config = (run / "config.yaml").read_bytes()

    evaluate = ["--eval-only", *arguments, f"train.init_checkpoint={run / 'model_final.pth'}"]
    assert tool(evaluate) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert (run / "config.yaml").read_bytes() == config

    assert tool(arguments) == 2  # another run would overwrite this one
    assert "train.output_dir" in capsys.readouterr().err
    assert tool(["--resume", *arguments, "train.max_iter=3"]) == 0
    assert torch.load(run / "model_final.pth", weights_only=True)["iteration"] == 2


def test_weights_for_other_images_are_refused(config_file, data, tmp_path):
    backbone = instantiate(LazyConfig.load(str(config_file)).model.backbone.bottom_up)
    weights = {f"backbone.bottom_up.{k}": v for k, v in backbone.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "backbone.pth")
    opts = (
        f"train.output_dir={tmp_path / 'run'}",
        f"train.init_checkpoint={tmp_path / 'backbone.pth'}",
        "train.max_iter=1",
        f"dataloader.train.dataset.names={data['train']}",
        f"dataloader.test.dataset.names={data['val']}",
    )
    with pytest.raises(ValueError, match="INPUT.FORMAT RGB"):
        run_lazy(RunRequest(str(config_file), (*opts, "model.input_format=BGR")))
    run_lazy(RunRequest(str(config_file), opts))


def test_sigterm_saves_and_stops_and_the_run_resumes(config_file, data, tmp_path, monkeypatch):
    opts = (
        f"train.output_dir={tmp_path / 'run'}",
        "train.max_iter=3",
        f"dataloader.train.dataset.names={data['train']}",
        "dataloader.evaluator=null",
    )
    step = TrainingStep.run_step
    handlers = logging.getLogger("detectron2").handlers[:]

    def stopped(self):
        step(self)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingStep, "run_step", stopped)
        with pytest.raises(SystemExit) as stop:
            run_lazy(RunRequest(str(config_file), opts))
    assert stop.value.code == 75
    saved = [file.name for file in (tmp_path / "run").glob("*.pth")]
    assert saved == ["model_0000000.pth"]
    assert logging.getLogger("detectron2").handlers == handlers
    run_lazy(RunRequest(str(config_file), opts, resume=True))
    assert torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["iteration"] == 2


def test_data_sets_of_a_config_file_are_registered_in_every_process(config_file, tmp_path):
    files = sample_set(tmp_path, image_size=64, train_images=4, val_images=2)
    lines = ["from resnest_d2.data import register_coco"]
    for split, part in (("train", "train"), ("val", "test")):
        lines.append(f"dataloader.{part}.dataset.names = register_coco(*{files[split]!r})")
    config_file.write_text(config_file.read_text() + "\n".join(lines) + "\n")
    plan = prepare_lazy(RunRequest(str(config_file), (f"train.output_dir={tmp_path / 'run'}",)))
    names = [plan.cfg.dataloader[part].dataset.names for part in ("train", "test")]
    for name in names:  # a new process does not know them
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    pickle.loads(cloudpickle.dumps(plan)).register()
    assert set(names) <= set(DatasetCatalog.list())


@pytest.mark.slow
def test_two_processes_train_a_lazy_config(config_file, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    files = sample_set(tmp_path, image_size=64, train_images=4, val_images=2)
    lines = ["from resnest_d2.data import register_coco"]  # in every process
    for split, part in (("train", "train"), ("val", "test")):
        lines.append(f"dataloader.{part}.dataset.names = register_coco(*{files[split]!r})")
    config_file.write_text(config_file.read_text() + "\n".join(lines) + "\n")
    output = tmp_path / "results.json"
    request = RunRequest(
        str(config_file),
        (f"train.output_dir={tmp_path / 'run'}",),
        num_processes=2,
        output_json=str(output),
    )
    assert set(run_lazy(request)) == set(json.loads(output.read_text())) == {"bbox", "segm"}
    assert torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["iteration"] == 1


# ---- refusals ----


@pytest.mark.parametrize(
    ("opts", "kind", "message"),
    [
        (["train.max_itr=5"], KeyError, "no key train.max_itr .*train has .*max_iter"),
        (["trian.max_iter=5"], KeyError, "no key trian.max_iter"),
        (["SOLVER.BASE_LR", "0.1"], ValueError, "path.key=value, got 'SOLVER.BASE_LR'"),
        (["optimizer.lr=[1"], ValueError, "cannot override with optimizer.lr"),
        (["train.amp.enabled=True"], ValueError, "train.amp.enabled is float16"),
        (["model.backbone.bottom_up.freeze_at=2"], ValueError, "freeze_at is 2"),
        (["train.init_checkpoint=nowhere.pth"], FileNotFoundError, "init_checkpoint.*nowhere.pth"),
        (["dataloader.train.dataset.names=nobody"], KeyError, "'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(config_file, data, tmp_path, opts, kind, message):
    names = [
        f"dataloader.{part}.dataset.names={data[split]}"
        for part, split in (("train", "train"), ("test", "val"))
    ]
    opts = (f"train.output_dir={tmp_path / 'run'}", *names, *opts)
    with pytest.raises(kind, match=message):
        prepare_lazy(RunRequest(str(config_file), opts))


def test_a_further_argument_of_a_call_is_accepted(config_file, data, tmp_path):
    opts = (
        "model.backbone.bottom_up.radix=4",
        f"dataloader.train.dataset.names={data['train']}",
        f"dataloader.test.dataset.names={data['val']}",
        f"train.output_dir={tmp_path / 'run'}",
    )
    cfg = prepare_lazy(RunRequest(str(config_file), opts)).cfg
    with torch.device("meta"):
        assert instantiate(cfg.model).backbone.bottom_up.res2[0].conv2.radix == 4


def test_both_mappers_of_a_run_read_by_the_rule_of_the_training_mapper(config_file, data, tmp_path):
    opts = [f"dataloader.{part}.dataset.names={data['val']}" for part in ("train", "test")]
    opts += [f"train.output_dir={tmp_path / 'run'}", "dataloader.train.mapper.intensity_rule=none"]
    cfg = prepare_lazy(RunRequest(str(config_file), tuple(opts))).cfg
    for part in ("train", "test"):
        mapper = instantiate(cfg.dataloader[part].mapper)
        assert isinstance(mapper, ImageMapper) and mapper.intensity.rule == "none"


def test_batch_that_does_not_divide_is_refused(config_file, data, tmp_path):
    names = [f"dataloader.{part}.dataset.names={data['train']}" for part in ("train", "test")]
    opts = (f"train.output_dir={tmp_path / 'run'}", *names)
    with pytest.raises(ValueError, match="total_batch_size must be a multiple of the 4 processes"):
        prepare_lazy(RunRequest(str(config_file), opts, num_processes=4))


@needs_checkout
def test_names_are_packaged_ones_or_files(tmp_path, tool, capsys):
    assert get_lazy_config("mask_rcnn_resnest50_fpn.py") == get_lazy_config(RECIPES[2])
    with pytest.raises(KeyError, match="Nearest: .*mask_rcnn_resnest50_fpn.*Available"):
        get_lazy_config("mask_rcnn_resnest50")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        get_lazy_config(tmp_path / "nowhere.py")
    yaml = tmp_path / "mine.yaml"
    yaml.write_text("VERSION: 2\n")
    with pytest.raises(ValueError, match=r"LazyConfig is a .py file, got .*mine.yaml"):
        get_lazy_config(yaml)
    assert tool(["--config-file", str(yaml)]) == 2
    assert "mine.yaml" in capsys.readouterr().err
