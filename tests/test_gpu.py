"""The GPU paths. Not run where there is no GPU: ``pytest -m gpu``."""

import pytest
import torch
from detectors import image, small_detector

from resnest_d2 import ResNeSt, optimize_for_inference
from resnest_d2.benchmark import measure
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

DCN = {"deform_on_per_stage": (False, True, True, True), "deform_modulated": True}


@pytest.mark.parametrize("options", [{}, {**DCN, "deform_num_groups": 2}], ids=["plain", "DCN"])
def test_gpu_equals_cpu_in_float64(options):
    model = ResNeSt.from_variant("resnest50", **options).double().eval()
    x = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        actual = model.cuda()(x.cuda())
    for name, value in expected.items():
        torch.testing.assert_close(actual[name].cpu(), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("SOLVER.AMP.ENABLED", "True", "RESNEST.AMP_DTYPE", ""),
        (
            *("RESNEST.AMP_DTYPE", "float16", "RESNEST.EMA.DECAY", "0.9"),
            *("RESNEST.ACCUMULATE", "2", "RESNEST.ACTIVATION_CHECKPOINTING", "('res2', 'res3')"),
        ),
        ("MODEL.RESNETS.NORM", "SyncBN", "MODEL.FPN.NORM", "SyncBN"),
    ],
    ids=["bfloat16", "float16", "float16 and all features", "SyncBN"],
)
def test_sample_recipe_trains_on_the_gpu(opts, tmp_path):
    data = sample_set(tmp_path / "data", image_size=96, train_images=8, val_images=2)
    results = run(
        RunRequest(
            "sample_mask_rcnn_resnest14_fpn",
            ("MODEL.DEVICE", "cuda", "SOLVER.MAX_ITER", "3", "OUTPUT_DIR", str(tmp_path), *opts),
            train=(data["train"],),
            val=(data["val"],),
        )
    )
    assert set(results) == {"bbox", "segm"}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_two_gpus_train_with_syncbn(tmp_path):
    data = sample_set(tmp_path / "data", image_size=96, train_images=8, val_images=2)
    output = tmp_path / "results.json"
    run(
        RunRequest(
            "sample_mask_rcnn_resnest14_fpn",
            ("MODEL.RESNETS.NORM", "SyncBN", "OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_ITER", "3"),
            train=(data["train"],),
            val=(data["val"],),
            num_processes=2,
            output_json=str(output),
        )
    )
    assert output.is_file()


@pytest.mark.parametrize("dtype", [torch.float32, None], ids=["float32", "chosen"])
def test_optimised_detector_on_the_gpu_detects_the_same(dtype):
    model = small_detector("mask", "MODEL.DEVICE", "cuda")
    optimised = optimize_for_inference(model, dtype=dtype)
    with torch.inference_mode():
        for size in ((256, 320), (320, 256)):
            inputs = [image(*size), image(*size)]
            x = model.preprocess_image(inputs).tensor
            for name, value in model.backbone(x).items():
                error = (optimised.backbone(x)[name] - value).norm() / value.norm()
                assert error < (1e-2 if dtype else 5e-2)  # TF32, bfloat16
            for found in optimised(inputs):
                assert found["instances"].pred_masks.device.type == "cuda"
    assert optimised.backbone.forward.called and optimised.roi_heads.box_head.forward.called


@pytest.mark.parametrize("setting", ["recompute_norm", "checkpointed", "compiled", "bfloat16"])
def test_benchmark_measures_training_on_the_gpu(setting):
    names = [f"resnest50+{setting}", "resnest50"]
    ours, plain = measure(
        names, size=(128, 128), batch=2, training=True, device="cuda", runs=2, warmup=1
    )
    assert ours.peak < plain.peak if setting != "compiled" else ours.peak
    assert len(plain.latency_ms) == 2
