"""Detectron2's checkpointer with strict loading and atomic writing; every tool loads through it.

Files are read without running anything in them, names of other formats become the model's, and one
table logs what fits (:mod:`.match`). What Detectron2 leaves random without an error is refused: a
backbone that matches in part, heads of another size, weights for another input format. With another
class count, only the predictors are initialised anew.

Config and class names are stored in each checkpoint, in an entry beside ``model`` that stock
Detectron2 ignores. Files are written whole or not at all (:mod:`resnest_d2.files`). A run resumes
from the newest checkpoint that can be read (:mod:`.folder`), and logs the changed keys of its
config.
"""

import logging
import os

import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm

from ..files import AtomicFiles, free_space, is_write_failure, write_failure_reason
from .convert import convert, describe, recognise
from .folder import Choice, choose_checkpoint, remove_old, remove_temporaries, run_files
from .match import Match, backbone_prefix, compare
from .record import RECORD_KEY
from .resume_changes import OPTIMISER_KEYS, changed_keys
from .statistics import InputStatistics, require_same_statistics, weights_statistics
from .weight_files import StoredWeights, read_weights

logger = logging.getLogger(__name__)


class RunCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with a record in each file, atomic writing and strict loading.

    ``load`` and ``resume_or_load`` raise ``ValueError`` where the weights do not fit, before they
    change the model. ``save`` raises ``OSError`` where the disk is full or fails; earlier files
    stay as they were.

    Args:
        record: see :func:`.record.make_record`; None writes none.
        keep: number of periodic checkpoints that stay in ``save_dir``, the last ones; 0: all.
        whole: refuse a file that does not fill every weight of the model, as evaluation and
            resuming need it.
        partial_backbone: let a backbone match in part.
        statistics: the model's input; weights that are known to expect another one are refused.
            None compares nothing.
        trust_pickle: load any pickle, which runs the code in it.
        checkpointables: as for Detectron2's.

    Attributes:
        loaded: the last loaded file and how it fits, or None.
    """

    loaded: tuple[str, Match] | None = None

    def __init__(
        self,
        model,
        save_dir="",
        *,
        record: dict | None = None,
        keep: int = 0,
        whole: bool = False,
        partial_backbone: bool = False,
        statistics: InputStatistics | None = None,
        trust_pickle: bool = False,
        **checkpointables,
    ):
        super().__init__(model, save_dir, **checkpointables)
        self.path_manager = AtomicFiles(self.path_manager)
        self._record = record
        self._keep = keep
        self._whole = whole
        self._partial_backbone = partial_backbone
        self._statistics = statistics
        self._trust_pickle = trust_pickle

    @classmethod
    def from_config(cls, cfg: CfgNode, model, save_dir: str = "", **kwargs) -> "RunCheckpointer":
        """With the config's input statistics, and ``RESNEST.ALLOW_…`` obeyed."""
        return cls(
            model,
            save_dir,
            partial_backbone=cfg.RESNEST.ALLOW_PARTIAL_BACKBONE,
            statistics=(
                None if cfg.RESNEST.ALLOW_STATISTICS_MISMATCH else InputStatistics.from_config(cfg)
            ),
            **kwargs,
        )

    @staticmethod
    def has_last(folder: str) -> bool:
        """Whether ``folder`` has something to resume from."""
        return bool(run_files(folder))

    @staticmethod
    def found_in(folder: str) -> list[str]:
        """Files in ``folder`` that another run would overwrite, sorted."""
        return run_files(folder)

    def has_checkpoint(self) -> bool:
        return super().has_checkpoint() if self._remote else self.has_last(self.save_dir)

    @property
    def _remote(self) -> bool:
        return "://" in self.save_dir

    def save(self, name, **kwargs):
        if self._record is not None:
            kwargs[RECORD_KEY] = self._record
        if self._remote or not (self.save_dir and self.save_to_disk):
            super().save(name, **kwargs)
            return
        self.remove_temporaries()
        try:
            super().save(name, **kwargs)
        except (OSError, RuntimeError) as error:
            if not is_write_failure(error):
                raise
            reason, remedy = write_failure_reason(error)
            try:
                last = f"{self._choose().path.name}, saved before, is intact"
                left = f"{last}: {remedy}, and --resume continues from it"
            except (OSError, ValueError):
                left = f"Nothing was saved before: {remedy}, and start again"
            raise OSError(
                f"{self.save_dir}/{name}.pth is not written: {reason} "
                f"({free_space(self.save_dir)} free in {self.save_dir}). {left}"
            ) from error
        if self._keep and "iteration" in kwargs:
            remove_old(self.save_dir, keep=self._keep, iteration=kwargs["iteration"])

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        if last_filename_basename != "model_best.pth":  # training does not resume from it
            super().tag_last_checkpoint(last_filename_basename)

    def remove_temporaries(self) -> None:
        """Remove what a process that was killed while writing has left in ``save_dir``."""
        if self.save_dir and self.save_to_disk and not self._remote:
            remove_temporaries(self.save_dir)

    def load(self, path, *args, **kwargs):
        try:
            return super().load(path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # Detectron2 forgets it after an error

    def resume_or_load(self, path, *, resume=True):
        """As Detectron2's, from the newest checkpoint that can be read, the same in all processes.

        Raises:
            ValueError: no checkpoint can be used, or it does not fit.
            OSError: this process cannot read the file that the main process resumes from.
        """
        file = self._file_to_resume() if resume else ""
        if not file:
            return self.load(path, checkpointables=[])
        self._whole = True
        return self.load(file)

    def _file_to_resume(self) -> str:
        """The main process's choice, "" where there is nothing to resume from."""
        if self._remote:
            return self.get_checkpoint_file() if self.has_checkpoint() else ""
        file, problem = "", None
        if comm.is_main_process() and self.has_checkpoint():
            try:
                choice = self._choose()
                file = str(choice.path)
                choice.log()
                self._log_changes(choice)
            except (OSError, ValueError) as error:
                problem = error
        file, problem = comm.all_gather((file, problem))[0]
        if problem is not None:
            raise problem
        if not all(comm.all_gather(not file or os.path.isfile(file))):
            raise OSError(
                f"not every process of this run can read {file}: to resume on several machines, "
                "they must share OUTPUT_DIR"
            )
        return file

    def _choose(self) -> Choice:
        # Other states may be new: averaging of weights can begin when a run is resumed.
        needed = [name for name in ("trainer",) if name in self.checkpointables]
        return choose_checkpoint(self.save_dir, entries=needed, trust_pickle=self._trust_pickle)

    def _log_changes(self, choice: Choice) -> None:
        before = choice.outline.metadata.get(RECORD_KEY)
        if self._record is None or not isinstance(before, dict):
            return
        changed = changed_keys(before.get("config"), self._record["config"])
        if changed:
            lines = "".join(f"\n  {key}: {old} -> {new}" for key, old, new in changed)
            if any(key in OPTIMISER_KEYS for key, _, _ in changed):
                lines += (
                    "\nThe optimiser continues with the rates, momentum and weight decay that were "
                    "saved: for other ones, start a run with --init-from"
                )
            logger.warning(f"The config has changed since {choice.path} was saved:{lines}")

    def load_stored(self, stored: StoredWeights) -> None:
        """Load a file that was read already. Same errors as ``load``."""
        self._load_model(self._fit(stored))

    def check(self, uri: str) -> StoredWeights:
        """Read a file and refuse one that ``load`` would refuse; nothing is loaded or logged.

        The model may be on the device ``meta``.
        """
        path, _, query = uri.partition("?")
        path = self.path_manager.get_local_path(path)
        stored = read_weights(path, trust_pickle=self._trust_pickle)
        self._match(stored, _by_heuristics(query))
        return stored

    def check_stored(self, stored: StoredWeights) -> None:
        """The same for a file that was read already; its tensors may be on ``meta``."""
        self._match(stored, heuristics=False)

    def _load_file(self, filename):
        stored = read_weights(filename, trust_pickle=self._trust_pickle)
        return self._fit(stored, _by_heuristics(self._parsed_url_during_load.query))

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        assert not incompatible.unexpected_keys and not incompatible.incorrect_shapes
        return incompatible

    def _log_incompatible_keys(self, incompatible):
        pass  # they are in the table

    def _fit(self, stored: StoredWeights, heuristics: bool = False) -> dict:
        """A checkpoint for Detectron2, with only the tensors that fit the model."""
        tensors, match = self._match(stored, heuristics)
        self.loaded = (stored.path, match)
        known = weights_statistics(stored)
        if None not in (known, self._statistics) and known != self._statistics:
            logger.info(
                f"{stored.path} was trained with {known}, the config has {self._statistics}: the "
                "difference is too small to matter"
            )
        logger.info(f"Weights of {stored.path} ({stored.format}) in this model:\n{match.table()}")
        changed, _ = match.changed_predictors()
        if changed:
            names = [f"{name} ({given} -> {own})" for name, (given, own) in changed.items()]
            logger.info(
                f"{stored.path} has another class count. Initialised anew, with the classes of "
                f"file -> model: {', '.join(names)}"
            )
        own = self.model.state_dict()
        loaded = {
            name: value
            for name, value in tensors.items()
            if name in own
            and value.shape == own[name].shape
            and (name in match.own or name.endswith(".num_batches_tracked"))  # resumed too
        }
        return {**stored.metadata, "model": loaded, "matching_heuristics": False}  # done

    def _match(self, stored: StoredWeights, heuristics: bool) -> tuple[dict, Match]:
        """The file's tensors under the model's names, and how they fit.

        Raises:
            ValueError: they do not fit.
        """
        path, own = stored.path, self.model.state_dict()
        if self._statistics is not None:
            require_same_statistics(path, weights_statistics(stored), self._statistics)
        tensors = self._rename(stored, heuristics)
        match = compare(own, tensors)
        problem = match.backbone_problem(new_offsets=not self._whole)
        if problem and not self._partial_backbone:
            raise ValueError(
                f"{path} does not match the model's backbone: {problem}. The file: "
                f"{_network(stored.tensors)}. The model: {_network(own)}. Choose weights of the "
                "model's network, or the config of the file's network; or set "
                "RESNEST.ALLOW_PARTIAL_BACKBONE True: then what does not match stays random"
            )
        problem = self._whole and match.whole_problem()
        if problem:
            raise ValueError(
                f"{path} has {problem}. Evaluation, prediction and resuming need a whole "
                "detector's weights: random heads detect nothing"
                f"{_other_classes(match, path)}"
            )
        integers = [
            f"{name} ({tensors[name].dtype})"
            for name in match.matched
            if own[name].is_floating_point() and not tensors[name].is_floating_point()
        ]
        if integers:
            raise ValueError(
                f"{path} has integers where the model has floating-point numbers: "
                f"{', '.join(integers[:3])}{', …' if len(integers) > 3 else ''}"
            )
        _, problem = match.changed_predictors()
        if problem:
            raise ValueError(
                f"{path} has heads of another size than the model, and not for its class count: "
                f"{problem}"
            )
        return tensors, match

    def _rename(self, stored: StoredWeights, heuristics: bool) -> dict[str, torch.Tensor]:
        """The file's tensors under the model's names, where they are known."""
        own, tensors = self.model.state_dict(), dict(stored.tensors)
        if heuristics or stored.metadata.get("matching_heuristics"):  # Detectron2's own way
            caffe2 = stored.metadata.get("__author__") == "Caffe2"
            tensors = align_and_update_state_dicts(own, tensors, c2_conversion=caffe2)
            if caffe2:  # some lack the statistics, which FrozenBN then has as it initialises them
                for name, module in self.model.named_modules():
                    if isinstance(module, FrozenBatchNorm2d) and f"{name}.weight" in tensors:
                        for statistic in ("running_mean", "running_var"):
                            tensors.setdefault(f"{name}.{statistic}", own[f"{name}.{statistic}"])
            return tensors
        if stored.format not in ("", "detectron2", "resnest_d2"):
            try:
                tensors = convert(tensors, stored.format, "resnest_d2")
            except ValueError as error:
                raise ValueError(f"{stored.path} cannot be converted: {error}") from error
        given, prefix = backbone_prefix(tensors), backbone_prefix(own)

        def renamed(name: str) -> str:
            bare = name.removeprefix(given)
            if bare in own and bare.startswith("linear."):  # an ImageClassifier's own
                return bare
            return prefix + bare if name.startswith(given) else name

        return {renamed(name): value for name, value in tensors.items()}


def _other_classes(match: Match, path: os.PathLike) -> str:
    """What to do where a file is for another number of classes than the model, or ""."""
    for given, own in match.changed_predictors()[0].values():
        return (
            f". The file is for {given} classes, the model for {own}: to evaluate or to predict, "
            "use the config that it was trained with; to train it for other classes, start a new "
            f"run with --init-from {path} and another OUTPUT_DIR"
        )
    return ""


def _network(tensors: dict[str, torch.Tensor]) -> str:
    try:
        return describe(tensors, recognise(tensors))
    except ValueError as error:
        return str(error)


def _by_heuristics(query: str) -> bool:
    """Whether ``?matching_heuristics=True`` follows a file's name; nothing else may."""
    if query not in ("", "matching_heuristics=True", "matching_heuristics=False"):
        raise ValueError(
            f"only ?matching_heuristics=True may follow the name of weights, got ?{query}"
        )
    return query.endswith("True")
