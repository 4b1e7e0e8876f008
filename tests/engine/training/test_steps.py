"""One training step: accumulated gradients, several processes, mixed precision, clipping."""

import pytest
import torch
from processes import run_in_processes
from runs import TINY
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, prepare
from resnest_d2.engine.training.optimizer import build_optimizer
from resnest_d2.engine.training.steps import TrainingStep
from resnest_d2.modeling import ResNeSt


class Classifier(nn.Module):
    """A ResNeSt with frozen norms, whose loss is a mean over images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        size = {"width_per_group": 16, "res2_out_channels": 16, "stem_width": 8}
        self.net = ResNeSt.from_variant("resnest14", norm="FrozenBN", num_classes=5, **size)
        self.double()

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        logits = self.net(torch.stack([item["image"] for item in batch]))["linear"]
        return {"loss_cls": nn.functional.cross_entropy(logits, labels_of(batch))}


def labels_of(batch: list[dict]) -> torch.Tensor:
    return torch.tensor([item["label"] for item in batch])


def pictures(count: int) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randn(3, 32, 32, generator=generator).double(), "label": i % 5}
        for i in range(count)
    ]


def split(batch: list, parts: int) -> list[list]:
    size = len(batch) // parts
    return [batch[i : i + size] for i in range(0, len(batch), size)]


def train(model: nn.Module, batches: list[list], *, steps: int = 1, rate: float = 0.1, **options):
    """Take steps over the batches and return the step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    step = TrainingStep(model, batches, optimizer, **options)
    with EventStorage() as storage:
        for step.iter in range(steps):
            step.run_step()
    step.storage = storage
    return step


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("images", [1, 3])
def test_four_micro_batches_equal_one_batch_where_the_loss_is_a_mean_over_images(images):
    batch = pictures(8 * images)
    one, four = Classifier(), Classifier()
    start = state_of(one)
    expected = train(one, split(batch, 2), steps=2)
    actual = train(four, split(batch, 8), steps=2, micro_batches=4)
    assert any(not torch.equal(value, start[name]) for name, value in state_of(one).items())
    torch.testing.assert_close(state_of(four), state_of(one), rtol=0, atol=1e-9)
    losses = [s.storage.latest()["total_loss"][0] for s in (actual, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)  # what is logged is the mean, too


def detector() -> nn.Module:
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", (*TINY, "MODEL.MASK_ON", "False"))
    torch.manual_seed(0)
    return build_model(cfg)


def scenes(count: int) -> list[list[dict]]:
    """Micro-batches of two images, with different numbers of boxes."""
    generator = torch.Generator().manual_seed(2)
    batches = []
    for number in range(count):
        batch = []
        for _ in range(2):
            corner = torch.rand(number + 1, 2, generator=generator) * 30
            truth = Instances((64, 64))
            truth.gt_boxes = Boxes(torch.cat([corner, corner + 25], dim=1))
            truth.gt_classes = torch.arange(number + 1) % 5
            image = torch.rand(3, 64, 64, generator=generator) * 255
            batch.append({"image": image, "instances": truth})
        batches.append(batch)
    return batches


class Seeded(nn.Module):
    """A detector that samples the same proposals whenever it sees a micro-batch."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: list[dict]):
        torch.manual_seed(int(batch[0]["image"].sum()))
        return self.model(batch)


def test_step_of_a_detector_has_the_mean_of_the_micro_batches_gradients():
    batches = scenes(3)
    gradients = []
    for batch in batches:
        model = Seeded(detector())
        train(model, [batch], rate=0.0)
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    model = Seeded(detector())
    train(model, batches, micro_batches=3, rate=0.0)
    for name, parameter in model.named_parameters():
        expected = sum(found[name] for found in gradients) / 3
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


def two_processes(rank: int) -> dict:
    model = Classifier()
    own = split(pictures(16), 2)[rank]
    exchanges = []
    for micro_batches in (4, 1):
        wrapped = DistributedDataParallel(model)
        count = []

        def average(state, bucket, count=count):
            count.append(1)
            future = torch.distributed.all_reduce(bucket.buffer(), async_op=True).get_future()
            return future.then(lambda done: done.value()[0] / 2)

        wrapped.register_comm_hook(None, average)
        train(wrapped, split(own, 2 * micro_batches), steps=2, micro_batches=micro_batches)
        exchanges.append(len(count))
    return {"weights": state_of(model), "exchanges": exchanges}


def test_two_processes_accumulate_to_the_step_of_one_large_batch(tmp_path):
    def reference() -> dict:
        first, second = split(pictures(16), 2)
        together = [a + b for a, b in zip(split(first, 2), split(second, 2), strict=True)]
        model = Classifier()
        train(model, together, steps=2)  # as four micro-batches in each process
        train(model, together, steps=2)  # as one
        return state_of(model)

    first, second = run_in_processes(two_processes, tmp_path)
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    torch.testing.assert_close(dict(first["weights"]), reference(), rtol=0, atol=1e-9)
    # Gradients are exchanged once a step, whatever the number of micro-batches.
    assert first["exchanges"][0] == first["exchanges"][1]


def test_losses_are_checked_before_they_reach_a_weight():
    seen = []

    def check(losses, batch):
        seen.append(len(batch))
        if len(seen) == 2:
            raise FloatingPointError("stop")

    model = Classifier()
    start = state_of(model)
    with pytest.raises(FloatingPointError):
        train(model, split(pictures(4), 4), micro_batches=4, check_losses=check)
    assert seen == [1, 1]
    torch.testing.assert_close(state_of(model), start, rtol=0, atol=0)


class Scale:
    """A gradient scaler as on a GPU, for a plain model on the CPU."""

    def __init__(self):
        self.log = []

    def scale(self, loss):
        return loss * 1024

    def unscale_(self, optimizer):
        self.log.append("unscale")
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad /= 1024

    def step(self, optimizer):
        self.log.append("step")
        optimizer.step()

    def update(self):
        self.log.append("update")


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_norms_and_biases_have_their_own_rates_and_decays(optimizer):
    decays = ("SOLVER.WEIGHT_DECAY", "0.3", "SOLVER.WEIGHT_DECAY_NORM", "0.2")
    biases = ("SOLVER.WEIGHT_DECAY_BIAS", "0.1", "SOLVER.BIAS_LR_FACTOR", "2.0")
    opts = (*decays, *biases, "SOLVER.BASE_LR", "0.01", "SOLVER.OPTIMIZER", optimizer)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    built = build_optimizer(get_config("sample_mask_rcnn_resnest14_fpn", opts), model)
    assert isinstance(built, getattr(torch.optim, optimizer))
    found = {id(p): (g["lr"], g["weight_decay"]) for g in built.param_groups for p in g["params"]}
    assert {name: found[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": (0.01, 0.3),
        "1.weight": (0.01, 0.2),
        "2.weight": (0.01, 0.2),
        **{f"{number}.bias": (0.02, 0.1) for number in range(3)},
    }


CLIP = ("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.01")


def clipped_gradients(
    kind: str, optimizer_name: str, scaler=None, more: tuple = ()
) -> list[torch.Tensor]:
    """Gradients as the optimiser saw them in a step of two micro-batches."""
    opts = [
        *CLIP,
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        kind,
        "SOLVER.OPTIMIZER",
        optimizer_name,
        *more,
    ]
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", [*opts, *more])
    model = Classifier()
    optimizer = build_optimizer(cfg, model)
    step = TrainingStep(model, split(pictures(4), 2), optimizer, micro_batches=2)
    step._scaler = scaler
    with EventStorage():
        step.run_step()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("kind", ["value", "norm", "full_model"])
def test_the_mean_gradient_is_clipped_once_and_unscaled(kind, optimizer, scaled):
    model = Classifier()
    train(model, split(pictures(4), 2), micro_batches=2, rate=0.0)
    expected = [parameter.grad for parameter in model.parameters()]
    if kind == "value":
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
    for group in [[p] for p in model.parameters()] if kind == "norm" else []:
        nn.utils.clip_grad_norm_(group, 0.01)
    if kind == "full_model":
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    scaler = Scale() if scaled else None
    actual = clipped_gradients(kind, optimizer, scaler)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12)
    assert not scaled or scaler.log == ["unscale", "step", "update"]


@pytest.mark.parametrize("norm_type", ["1.0", "inf"])
def test_the_norm_of_all_gradients_is_the_one_asked_for(norm_type):
    model = Classifier()
    train(model, split(pictures(4), 2), micro_batches=2, rate=0.0)
    expected = [parameter.grad for parameter in model.parameters()]
    nn.utils.clip_grad_norm_(model.parameters(), 0.01, float(norm_type))
    norm = ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", float(norm_type))
    actual = clipped_gradients("full_model", "SGD", more=norm)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12)


def test_clipping_is_logged(caplog):
    with caplog.at_level("INFO", logger="resnest_d2.engine.training.optimizer"):
        clipped_gradients("full_model", "AdamW")
    assert "2-norm of all gradients together to 0.01" in caplog.text


def test_softmax_of_the_attention_is_float32_in_a_bfloat16_step(monkeypatch):
    seen = []
    for name in ("softmax", "sigmoid"):
        function = getattr(torch, name)

        def spy(x, *args, function=function, **kwargs):
            out = function(x, *args, **kwargs)
            seen.append((x.dtype, out.dtype))
            return out

        monkeypatch.setattr(torch, name, spy)
    for radix in (1, 2, 4):
        seen.clear()
        size = {"width_per_group": 16, "res2_out_channels": 16, "stem_width": 8}
        net = ResNeSt.from_variant("resnest14", radix=radix, **size)
        with torch.autocast("cpu", torch.bfloat16):
            out = net(torch.randn(2, 3, 32, 32))["res5"]
        assert out.dtype == torch.bfloat16
        assert seen == 4 * [(torch.float32, torch.float32)]


@pytest.fixture(scope="module")
def request_for(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    data = sample_set(folder, image_size=64, train_images=4, val_images=2)

    def build(*opts, **kwargs):
        opts = (*TINY, "OUTPUT_DIR", str(folder / "run"), *opts)
        return RunRequest("sample_mask_rcnn_resnest14_fpn", opts, train=(data["train"],), **kwargs)

    return build


ACCUMULATE = "RESNEST.ACCUMULATE"
IMAGES = "SOLVER.IMS_PER_BATCH"


@pytest.mark.parametrize(
    ("opts", "processes", "message"),
    [
        (
            (ACCUMULATE, "4", IMAGES, "6"),
            1,
            f"{IMAGES} must be a multiple.*4 .*{ACCUMULATE}, got 6",
        ),
        (
            (ACCUMULATE, "2", IMAGES, "6"),
            2,
            f"{IMAGES} must be a multiple of the 2 processes times",
        ),
        ((ACCUMULATE, "0"), 1, f"{ACCUMULATE} must be at least 1, got 0"),
        ((ACCUMULATE, "4", IMAGES, "4"), 1, f"two or more images per process.*{ACCUMULATE}"),
        ((ACCUMULATE, "2", IMAGES, "4"), 2, f"two or more images per process.*{ACCUMULATE}"),
        (("RESNEST.AMP_DTYPE", "float16"), 1, "AMP_DTYPE 'float16'.*MODEL.DEVICE.*bfloat16"),
        (("RESNEST.EMA.DECAY", "1.0"), 1, "MODEL_EMA.DECAY must be .*less than 1, got 1.0"),
        (("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "all"), 1, "CLIP_TYPE must be one of .*full_model"),
        (("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0."), 1, "CLIP_VALUE must be above 0"),
        (
            ("RESNEST.ACTIVATION_CHECKPOINTING", "('res2', 'res7')"),
            1,
            "RESNEST.ACTIVATION_CHECKPOINTING must be one of .*res2.*res5.*got 'res7'",
        ),
    ],
)
def test_values_that_cannot_be_are_refused_with_key_and_choices(
    request_for, opts, processes, message
):
    with pytest.raises(ValueError, match=message):
        prepare(request_for(*opts, num_processes=processes))


@pytest.mark.parametrize(
    "opts",
    [
        (ACCUMULATE, "2", IMAGES, "4"),
        (ACCUMULATE, "4", IMAGES, "4", "MODEL.RESNETS.NORM", "GN"),
        (ACCUMULATE, "4", IMAGES, "4", "RESNEST.FREEZE", "('backbone.bottom_up.*',)"),
    ],
)
def test_micro_batches_that_norms_can_take_are_accepted(request_for, opts):
    assert prepare(request_for(*opts)).cfg.RESNEST.ACCUMULATE > 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_float16_scales_its_loss_and_keeps_its_scale_in_the_checkpoint():
    model = Classifier().float().cuda()

    class OnGpu(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            images = torch.stack([item["image"] for item in batch]).float().cuda()
            logits = self.model.net(images)["linear"]
            return {"loss": nn.functional.cross_entropy(logits, labels_of(batch).cuda())}

    step = train(OnGpu(), split(pictures(8), 4), micro_batches=2, steps=2, dtype=torch.float16)
    assert step.state_dict()["grad_scaler"]["scale"] > 1
    again = train(OnGpu(), split(pictures(4), 2), micro_batches=2, dtype=torch.float16)
    again.load_state_dict(
        {**step.state_dict(), "grad_scaler": {**step.state_dict()["grad_scaler"], "scale": 8.0}}
    )
    assert again.state_dict()["grad_scaler"]["scale"] == 8.0
    assert all(parameter.isfinite().all() for parameter in model.parameters())
