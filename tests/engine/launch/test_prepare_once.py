"""A run of several processes is prepared once, whoever starts it."""

import sys
from collections import Counter

import pytest
import torch
from commands import TORCHRUN, finish, start
from runs import TINY

from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2.engine import Trainer

# The script is the main module of each process that the run starts.
COUNTING = """
import os, sys
import resnest_d2.engine
from resnest_d2.data.check import structure

WEIGHTS, COUNTS = os.environ["WEIGHTS"], os.environ["COUNTS"]

def note(what, path):
    with open(COUNTS, "a") as file:
        file.write(f"{what} {os.path.basename(path)} {os.getpid()}\\n")

original = structure.read_structure

def counted(json_file):
    note("checked", json_file)
    return original(json_file)

for module in list(sys.modules.values()):
    if vars(module).get("read_structure") is original:
        module.read_structure = counted

def audit(event, arguments):
    if event == "open" and arguments[0] == WEIGHTS:
        note("opened", WEIGHTS)

sys.addaudithook(audit)

if __name__ == "__main__":
    if os.environ["HOW"] == "Python":
        import resnest_d2
        train, val, folder, *opts = sys.argv[1:]
        resnest_d2.train(
            "sample_mask_rcnn_resnest14_fpn",
            train=tuple(train.split(":")),
            val=tuple(val.split(":")),
            output_dir=folder,
            opts=opts,
            num_processes=2,
        )
    else:
        from resnest_d2_command import main
        sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs gloo over the loopback device")
@pytest.mark.parametrize(
    "how",
    ["--num-gpus", *(pytest.param(how, marks=pytest.mark.slow) for how in ("Python", "torchrun"))],
)
def test_data_and_weights_are_checked_by_one_process(how, tmp_path, monkeypatch):
    data = sample_set(tmp_path / "shapes", image_size=64, train_images=4, val_images=2)
    opts = [*TINY, "MODEL.ROI_HEADS.NUM_CLASSES", "5"]
    weights, counts, log = (tmp_path / name for name in ("model.pth", "counts", "log"))
    model = Trainer.build_model(get_config("sample_mask_rcnn_resnest14_fpn", opts))
    torch.save({"model": model.state_dict()}, weights)
    opts += ["MODEL.WEIGHTS", weights, "SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "1"]
    script = tmp_path / "count.py"
    script.write_text(COUNTING)
    for name, value in {"WEIGHTS": weights, "COUNTS": counts, "HOW": how}.items():
        monkeypatch.setenv(name, str(value))
    words = ["train", "--config-file", "sample_mask_rcnn_resnest14_fpn"]
    for split, (json_file, images) in data.items():
        words += [f"--{split}-json", json_file, f"--{split}-images", images]
    words += ["--num-gpus", "2"] if how == "--num-gpus" else []
    words += [*opts, "OUTPUT_DIR", tmp_path / "run"]
    if how == "Python":
        words = [*(":".join(pair) for pair in data.values()), tmp_path / "run", *opts]
    first = TORCHRUN if how == "torchrun" else ()
    assert finish(start([*first, script, *words], log)) == 0, log.read_text()[-5000:]

    lines = [line.split() for line in counts.read_text().splitlines()]
    checked = [(name, pid) for what, name, pid in lines if what == "checked"]
    files = {json_file.rpartition("/")[2] for json_file, _ in data.values()}
    assert sorted(name for name, _ in checked) == sorted(files)
    (planner,) = {pid for _, pid in checked}
    opened = Counter(pid for what, _, pid in lines if what == "opened")
    # once for the checks, and once in each of the two processes that load them
    assert sum(opened.values()) == 3
    assert opened[planner] == (2 if how == "torchrun" else 1)
