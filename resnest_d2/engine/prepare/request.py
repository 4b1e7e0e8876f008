"""A user's request for a run."""

from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True)
class RunRequest:
    """A training or evaluation run, as asked for.

    Args:
        config: a packaged config's name, a file, or a config; None with ``checkpoint`` alone, for
            the checkpoint's own.
        opts: KEY VALUE pairs that override it.
        train, val: own COCO-format data as (json file, image folder) pairs; their categories set
            the numbers of classes and keypoints. For a ``SemanticSegmentor`` (folder of label maps,
            image folder) pairs, for an ``ImageClassifier`` ("", folder of class folders). Empty:
            the config's data sets.
        classes: file with the names of the classes of label maps, or of class folders.
        on_bad_data: ``"refuse"`` refuses own data with errors; ``"repair"`` repairs what it can
            and refuses the rest; ``"skip"`` leaves the rest out and lists it in ``OUTPUT_DIR``.
        resume: go on from the last readable checkpoint of ``OUTPUT_DIR``, if it has one.
        init_from: file, or a run's folder, for ``MODEL.WEIGHTS``: a new run starts from these
            weights, with its own schedule; a resumed run ignores it.
        eval_only: evaluate ``checkpoint`` or ``MODEL.WEIGHTS`` (or, with ``resume``, the last
            checkpoint).
        checkpoint: with ``eval_only``, see :func:`.model_zoo.trained.find_trained_model`. Without
            ``config`` the data must have the classes that it was trained on. Results go to its
            folder unless ``opts`` name an ``OUTPUT_DIR``, those of ``resnest://NAME`` to the
            recipe's.
        verify: after ``eval_only``, compare with the catalog's AP and exit with 1 if it differs.
        optimize: with ``eval_only``, make the model faster first by ``optimize_for_inference``.
        trust_pickle: load weights even from a pickle that can run code.
        output_json: file for the metrics.
        quiet: show only warnings and errors of the log on the terminal; ``log.txt`` has all.
        num_processes: processes on this machine; one per GPU, or on the CPU.
        num_machines, machine_rank, dist_url: see Detectron2's ``launch``.

    Raises:
        ValueError: arguments that contradict each other.
    """

    config: str | CfgNode | None
    opts: tuple[str, ...] = ()
    train: tuple[tuple[str, str], ...] = ()
    val: tuple[tuple[str, str], ...] = ()
    classes: str | None = None
    on_bad_data: str = "refuse"
    resume: bool = False
    init_from: str | None = None
    eval_only: bool = False
    checkpoint: str | None = None
    verify: bool = False
    optimize: bool = False
    trust_pickle: bool = False
    output_json: str | None = None
    quiet: bool = False
    num_processes: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    def __post_init__(self):
        if self.optimize and not self.eval_only:
            raise ValueError("--optimize is for evaluation: give --eval-only too")
        if self.checkpoint is None:
            if self.config is None:
                raise ValueError("--config-file is missing: a packaged config's name or a file")
        elif not self.eval_only:
            raise ValueError(f"--checkpoint {self.checkpoint} is evaluated: give --eval-only too")
        elif self.resume or "MODEL.WEIGHTS" in self.opts[0::2]:
            other = "--resume" if self.resume else "MODEL.WEIGHTS"
            raise ValueError(
                f"--checkpoint {self.checkpoint} and {other} are two sources of weights: give one "
                "of them"
            )

    @property
    def world_size(self) -> int:
        """Processes on all machines together."""
        return self.num_processes * self.num_machines
