"""Runs of several processes: started here or by torchrun, together to the end or not at all."""

import json
import os
import re
import signal
import sys
import time

import pytest
import torch
from commands import TORCHRUN, descendants, finish, is_running, start, wait_for
from runs import TINY

from resnest_d2.config import get_config
from resnest_d2.data import sample_set
from resnest_d2.engine import RunRequest, Trainer
from resnest_d2.engine.diagnosis.run_errors import explain, is_lost_peer
from resnest_d2.engine.launch import torchrun
from resnest_d2.errors import check_choice

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sample_set(
        tmp_path_factory.mktemp("shapes"), image_size=64, train_images=6, val_images=3
    )


@pytest.fixture
def command(data):
    """Arguments of a training run."""

    def build(folder, *opts, options=(), val=False):
        words = ["train", "--config-file", "sample_mask_rcnn_resnest14_fpn", *options]
        for split in ("train", "val") if val else ("train",):
            json_file, images = data[split]
            words += [f"--{split}-json", json_file, f"--{split}-images", images]
        return [*words, *TINY, "OUTPUT_DIR", folder, *opts]

    return build


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def environment(monkeypatch):
    """Sets torchrun's environment."""

    def set_(rank=0, world=2, local_rank=0, local_world=2, **more):
        values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": local_rank}
        values |= {"LOCAL_WORLD_SIZE": local_world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
        for name, value in {**values, **more}.items():
            monkeypatch.setenv(name, str(value))

    for name in (*torchrun._NAMES, "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    return set_


def test_request_takes_its_processes_from_torchrun(environment):
    request = RunRequest("config")
    assert torchrun.adopt(request) is request
    environment(rank=5, world=6, local_rank=1, local_world=2)
    adopted = torchrun.adopt(request)
    assert (adopted.num_processes, adopted.num_machines, adopted.machine_rank) == (2, 3, 2)
    assert adopted.world_size == 6 and not adopted.resume
    assert torchrun.adopt(adopted) == adopted
    assert torchrun.process_rank() == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((4, None), "--num-gpus is 4, and torchrun's LOCAL_WORLD_SIZE is 2"),
        ((1, None), "--num-gpus is 1, and torchrun's LOCAL_WORLD_SIZE is 2"),
        ((None, 1), "--num-machines is 1, and .*LOCAL_WORLD_SIZE is 3"),
        ((2, 3, "tcp://a:1"), "--dist-url is tcp://a:1, and torchrun's MASTER_ADDR"),
    ],
)
def test_options_that_contradict_torchrun_are_refused(environment, given, message):
    torchrun.check_given(*given)
    environment(world=6)
    with pytest.raises(ValueError, match=message):
        torchrun.check_given(*given)
    torchrun.check_given(2, 3)
    torchrun.check_given(None, None)


def test_request_that_contradicts_torchrun_is_refused(environment):
    environment()
    with pytest.raises(ValueError, match="LOCAL_WORLD_SIZE is 2"):
        torchrun.adopt(RunRequest("config", num_processes=4))


@pytest.mark.parametrize(
    "values",
    [{"RANK": "x"}, {"RANK": 2}, {"LOCAL_WORLD_SIZE": 0}, {"WORLD_SIZE": 3}, {"LOCAL_RANK": 2}],
)
def test_environment_that_cannot_be_is_refused(environment, values):
    environment(**{}, **values)
    with pytest.raises(ValueError, match="environment's"):
        torchrun.read_environment()


def test_half_an_environment_is_refused_but_for_a_run_that_starts_its_own(environment, monkeypatch):
    environment()
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(ValueError, match="WORLD_SIZE 2, but not LOCAL_RANK: start.*torchrun"):
        torchrun.adopt(RunRequest("config"))
    torchrun.adopt(RunRequest("config", num_processes=2))


def test_restarted_group_resumes(environment):
    environment(TORCHELASTIC_RESTART_COUNT=1)
    assert torchrun.adopt(RunRequest("config")).resume
    assert not torchrun.adopt(RunRequest("config", eval_only=True)).resume


DUMPING = """
import os, sys, torch
from resnest_d2_command import main
from resnest_d2.engine import work

class Dumping(work.Trainer):
    def train(self):
        super().train()
        torch.save(self.model.module.state_dict(), f"{os.environ['OUT']}/{os.environ['RANK']}.pth")

work.Trainer = Dumping
sys.exit(main(sys.argv[1:]))
"""


def test_torchrun_trains_equal_weights_and_evaluates_as_one_process(command, tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    sync = [f"MODEL.{part}.NORM" for part in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")]
    opts = [word for key in sync for word in (key, "SyncBN")] + ["SOLVER.MAX_ITER", "20"]
    script, log = write(tmp_path / "dump.py", DUMPING), tmp_path / "log"
    words = command(tmp_path / "run", *opts)
    assert finish(start([*TORCHRUN, script, *words], log)) == 0, log.read_text()[-5000:]
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    assert len(first) > 100
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    # one terminal for all: only the first process's log is shown
    assert log.read_text().count("Full config saved to") == 1


KNOWING = """
import sys
import numpy as np, torch
from pycocotools import mask as mask_util
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from resnest_d2_command import main
from resnest_d2.engine import work

class Knowing(torch.nn.Module):
    # finds what is there, by and large, and says how sure it is at random
    def __init__(self, name):
        super().__init__()
        self.records = {record["image_id"]: record for record in DatasetCatalog.get(name)}

    def forward(self, batch):
        return [{"instances": self.find(self.records[image["image_id"]])} for image in batch]

    def find(self, record):
        random = np.random.RandomState(record["image_id"])
        annotations = record["annotations"]
        boxes = np.array([a["bbox"] for a in annotations], dtype="float32")
        boxes[:, 2:] += boxes[:, :2]
        masks = np.stack([mask_util.decode(a["segmentation"]) for a in annotations]).astype(bool)
        return Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(torch.tensor(boxes + random.uniform(-3, 3, boxes.shape))),
            pred_classes=torch.tensor([a["category_id"] for a in annotations]),
            scores=torch.tensor(random.uniform(0, 1, len(boxes))),
            pred_masks=torch.tensor(masks & (random.uniform(0, 1, masks.shape) > 0.2)),
        )

test = work.Trainer.test
work.Trainer.test = lambda cfg, model: test(cfg, Knowing(cfg.DATASETS.TEST[0]))
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "launcher", ["torchrun", pytest.param("--num-gpus", marks=pytest.mark.slow)]
)
def test_evaluation_shared_out_gives_the_numbers_of_one_process(launcher, command, tmp_path, data):
    cfg = get_config("sample_mask_rcnn_resnest14_fpn", [*TINY, "MODEL.ROI_HEADS.NUM_CLASSES", "5"])
    weights = tmp_path / "model.pth"
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, weights)
    script, results = write(tmp_path / "evaluate.py", KNOWING), {}
    for how in ("one", launcher):
        log = tmp_path / f"{how}.log"
        options = ["--eval-only", "--output-json", tmp_path / f"{how}.json"]
        options += ["--num-gpus", "2"] if how == "--num-gpus" else []
        words = command(tmp_path / how, "MODEL.WEIGHTS", weights, options=options, val=True)
        first = TORCHRUN if how == "torchrun" else ()
        assert finish(start([*first, script, *words], log)) == 0, log.read_text()[-5000:]
        printed = re.findall(r"Average (?:Precision|Recall).*", log.read_text())
        results[how] = ((tmp_path / f"{how}.json").read_text(), printed)
    numbers = json.loads(results["one"][0])
    assert 0 < numbers["bbox"]["AP"] < 100 and 0 < numbers["segm"]["AP"] < 100
    assert len(results["one"][1]) == 24
    assert results[launcher] == results["one"]


LEAVING = """
import os
import types
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from detectron2.utils import comm
from resnest_d2.engine.launch import torchrun

def threads():
    return set(os.listdir("/proc/self/task"))

before = threads()
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
comm._get_global_gloo_group()  # as what Detectron2 gathers does
trainer = types.SimpleNamespace(model=DistributedDataParallel(nn.Linear(1, 1)))
trainer.hook = trainer
del trainer
assert threads() - before
torchrun.leave_group()
assert not threads() - before
"""


@linux
def test_a_group_that_is_left_has_no_threads(tmp_path):
    log = tmp_path / "log"
    assert finish(start([write(tmp_path / "leave.py", LEAVING)], log)) == 0, log.read_text()


def test_what_one_of_torchruns_processes_refuses_all_refuse_and_one_says(command, tmp_path):
    log = tmp_path / "log"
    words = command(tmp_path / "run", "SOLVER.IMS_PER_BATCH", "3")
    assert finish(start([*TORCHRUN, "-m", "resnest_d2.cli", *words], log)) == 1  # torchrun's own
    text = log.read_text()
    assert text.count("resnest-d2: error: SOLVER.IMS_PER_BATCH must be a multiple of the 2") == 1
    assert re.search(r"exitcode +: 2 ", text)
    assert "RunError: SOLVER.IMS_PER_BATCH" in text  # the reason in torchrun's table
    assert not (tmp_path / "run").exists()


@linux
@pytest.mark.parametrize(
    "launcher", ["torchrun", pytest.param("--num-gpus", marks=pytest.mark.slow)]
)
def test_killed_process_ends_the_others_with_the_cause(launcher, command, tmp_path):
    log, folder = tmp_path / "log", tmp_path / "run"
    options = () if launcher == "torchrun" else ("--num-gpus", "2")
    opts = ("SOLVER.MAX_ITER", "9999", "SOLVER.IMS_PER_BATCH", "4")
    words = ["-m", "resnest_d2.cli", *command(folder, *opts, options=options)]
    process = start([*TORCHRUN, *words] if launcher == "torchrun" else words, log)
    text = log.read_text
    wait_for(lambda: "iter: 19" in text(), process, log)
    all_pids = descendants(process.pid)
    workers = [pid for pid in all_pids if re.search("spawn_main|resnest_d2", _words(pid))]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert finish(process, timeout=60) == 1
    if launcher == "torchrun":
        assert "Signal 9 (SIGKILL)" in text().partition("Root Cause")[2]
    else:
        assert "resnest-d2: error: the process of rank 1 (of 2) was killed by SIGKILL" in text()
    assert not [pid for pid in workers if is_running(pid)]


def _words(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().replace("\0", " ")


OWN_WORK = """
import os, signal, sys, time
import torch, torch.distributed as dist
from resnest_d2.cli.common import execute
from resnest_d2.engine import Plan, RunRequest
from resnest_d2.engine.launch.processes import run_in_processes

def prepare(request):
    return Plan(request, None, "cpu", ("OUTPUT_DIR", os.path.dirname(__file__)))

def work(plan):
    rank = dist.get_rank()
    MODE

def run(plan):
    return run_in_processes(work, plan)

if __name__ == "__main__":
    sys.exit(execute(lambda: RunRequest("", num_processes=2), prepare, run))
"""


def own_work(tmp_path, mode):
    lines = mode.strip().replace("\n", "\n    ")
    return write(tmp_path / "work.py", OWN_WORK.replace("MODE", lines))


def test_first_processes_error_is_shown_not_the_closed_connection(tmp_path):
    mode = """
if rank == 1:
    raise OSError(28, "No space left on device")
dist.all_reduce(torch.ones(1))
"""
    log = tmp_path / "log"
    assert finish(start([own_work(tmp_path, mode)], log)) == 1
    last = log.read_text().splitlines()[-1]
    assert last.startswith("resnest-d2: error: the process of rank 1 (of 2): [Errno 28] No space")
    assert last.endswith("(the disk is full: make room)")


def test_bug_in_a_process_is_shown_with_its_traceback(tmp_path):
    log = tmp_path / "log"
    mode = "dist.all_reduce(torch.ones(1)) if rank else None.missing"
    assert finish(start([own_work(tmp_path, mode)], log)) == 1
    text = log.read_text()
    assert "rank 0 (of 2) failed" in text and "work.py" in text
    assert "AttributeError: 'NoneType' object has no attribute 'missing'" in text


SAVING = """
def stop(number, frame):
    time.sleep(1 - rank)  # the first process still saves when the other has ended
    print(f"saved {rank}", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print(f"ready {rank}", flush=True)
while True:
    time.sleep(0.1)
"""


@linux
def test_sigterm_is_passed_on_and_the_exit_code_says_saved(tmp_path):
    log = tmp_path / "log"
    process = start([own_work(tmp_path, SAVING)], log)
    wait_for(lambda: log.read_text().count("ready") == 2, process, log)
    process.terminate()
    assert finish(process, timeout=60) == 75
    assert log.read_text().count("saved") == 2


@linux
@pytest.mark.parametrize(
    ("number", "in_background"),
    [
        (signal.SIGKILL, True),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
    ],
)
def test_no_process_outlives_the_one_that_started_it(number, in_background, tmp_path):
    log = tmp_path / "log"
    process = start([own_work(tmp_path, SAVING)], log, in_background=in_background)
    wait_for(lambda: log.read_text().count("ready") == 2, process, log)
    pids = descendants(process.pid)
    assert len(pids) >= 2
    process.send_signal(number)
    assert finish(process, timeout=60) == (130 if number == signal.SIGINT else -number)
    limit = time.monotonic() + 40  # 20 seconds are left to a process that is on its way out
    while any(map(is_running, pids)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not [pid for pid in pids if is_running(pid)]


def test_closed_connection_is_told_in_one_line_and_in_time(tmp_path):
    mode = """
if rank == 1:
    os._exit(0)
dist.all_reduce(torch.ones(1))
"""
    log = tmp_path / "log"
    # PyTorch's gloo group can hang when it is destroyed after that: the kernel ends it
    assert finish(start([own_work(tmp_path, mode)], log)) == 1
    last = log.read_text().splitlines()[-1]
    assert last.startswith("resnest-d2: error: the process of rank 0 (of 2): another process of")


def test_failures_are_told_from_bugs():
    assert explain(AttributeError("x")) is None
    assert explain(RuntimeError("shape mismatch")) is None
    assert explain(KeyError("x")) is None
    assert explain(ValueError("not raised by this package")) is None
    with pytest.raises(ValueError) as refused:
        check_choice("KEY", "x", ("y",))
    assert explain(refused.value).startswith("KEY must be one of")
    text = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback:\n  x\nOSError: gone"
    assert explain(OSError(text)) == "OSError: gone"
    assert "IMS_PER_BATCH" in explain(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    full = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nTraceback"
    assert explain(RuntimeError(full)) == f"the memory is full: {full.splitlines()[0]}"
    assert not is_lost_peer(ValueError("Connection closed by peer"))
