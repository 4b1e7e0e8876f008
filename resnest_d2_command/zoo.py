"""``zoo list`` and ``zoo show``: the catalog as text, without waiting for PyTorch to be imported.

They read ``resnest_d2/model_zoo/catalog.json``, which ``tools/make_model_zoo.py`` writes.
``zoo download`` is in ``resnest_d2.cli.zoo``.
"""

import argparse
import difflib
import importlib.util
import json
import os
import sys
from pathlib import Path

_LEGEND = """\
AP and PQ are quoted, of COCO val2017 at one scale, and so are mIoU, at several scales, and top-1,
of ImageNet; each gain is over the same recipe on a ResNet of the same depth. Parameters are
measured.

  weights and commands:       resnest-d2 zoo show NAME
  evaluate published weights: resnest-d2 evaluate --checkpoint resnest://NAME --verify
  train:                      resnest-d2 train --config-file NAME --num-gpus 8"""
_ROW = "{:40}{:>7}{:>6}{:>8}{:>6}{:>6}{:>6}{:>6}{:>6}{:>9}"
_RESULTS = {
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "pq": "PQ",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "top1": "top-1",
}
_NOT_MEASURED = "not yet measured"


def with_show(arguments: list[str]) -> list[str]:
    """Accept the old ``zoo NAME`` for ``zoo show NAME``, with a deprecation line on stderr."""
    words = [word for word in arguments if word not in ("--json", "--quiet")]
    known = words[1:2] in ([], ["list"], ["show"], ["download"])
    if words[:1] != ["zoo"] or known or words[1].startswith("-"):
        return arguments
    print("resnest-d2: 'zoo NAME' is deprecated: use 'zoo show NAME'", file=sys.stderr)
    return ["zoo", "show", *(word for word in arguments[1:] if word != "--quiet")]


def print_catalog(args: argparse.Namespace) -> int:
    """Do ``zoo list`` or ``zoo show`` and return the exit code."""
    return _list(args) if args.run == "zoo.list" else _show(args)


def _list(args: argparse.Namespace) -> int:
    everything = models = _read_catalog()["models"]
    for key in ("task", "backbone"):
        wanted, choices = getattr(args, key), sorted({model[key] for model in everything})
        if wanted is not None and wanted not in choices:
            return _refuse(f"{key} must be one of {', '.join(choices)}, got {wanted!r}")
        models = [model for model in models if wanted in (None, model[key])]
    if args.min_ap is not None:
        quoted = [(model, (model["published"] or {}).get("box_ap")) for model in models]
        models = [model for model, ap in quoted if ap is not None and ap >= args.min_ap]
    if args.json:
        return _print(models)
    return _print(f"{_table(models)}\n\n{_LEGEND}" if models else "no model fits")


def _show(args: argparse.Namespace) -> int:
    catalog = _read_catalog()
    name = args.name.removeprefix("resnest://").removesuffix(".yaml")
    for model in catalog["models"]:
        aliases = model["aliases"]
        if name in (model["name"], *aliases, *(Path(alias).name for alias in aliases)):
            return _print(model if args.json else _describe_model(model, catalog))
    files = {file["name"]: file for file in catalog["weights"]}
    if name in files:
        file = files[name]
        lines = [f"resnest://{name}", _images(file), *_mirrors(file)]
        return _print(file if args.json else "\n  ".join(lines))
    names = {*(model["name"] for model in catalog["models"]), *files}
    near = ", ".join(difflib.get_close_matches(name, sorted(names)))
    near = near or "none; resnest-d2 zoo lists the models"
    return _refuse(f"no model is named {args.name!r}. Nearest: {near}")


def _read_catalog() -> dict:
    package = importlib.util.find_spec("resnest_d2").submodule_search_locations[0]
    return json.loads(Path(package, "model_zoo", "catalog.json").read_text(encoding="utf-8"))


def _print(found: dict | list | str) -> int:
    try:
        print(found if isinstance(found, str) else json.dumps(found, indent=2))
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _refuse(problem: str) -> int:
    print(f"resnest-d2: error: {problem}", file=sys.stderr)
    return 2


def _table(models: list[dict]) -> str:
    """One line a model: published results, gains over its baseline, parameters."""

    def text(value: float | None, form: str = ".2f") -> str:
        return "–" if value is None else format(value, form)

    titles = ("box AP", "gain", "mask AP", "gain", "PQ", "mIoU", "gain", "top-1", "M params")
    lines = [_ROW.format("model", *titles)]
    for model in models:
        published, gains, cost = model["published"] or {}, model["gains"], model["measured"]
        row = [model["name"]]
        for key in ("box_ap", "mask_ap"):
            row += [text(published.get(key)), text(gains.get(key), "+.2f")]
        row += [text(published.get("pq"))]
        row += [text(published.get("miou")), text(gains.get("miou"), "+.2f")]
        row += [text(published.get("top1"))]
        row += [text(cost and cost["params"] / 1e6, ".1f")]
        lines.append(_ROW.format(*row))
    return "\n".join(lines)


def _describe_model(model: dict, catalog: dict) -> str:
    lines = ["{name}: {method} on {backbone} ({task})".format(**model)]
    if model["note"]:
        lines.append(f"  {model['note']}")
    if model["aliases"]:
        lines.append(f"  in the original plugin: {', '.join(model['aliases'])}")
    weights, files = [_images(model)], {file["name"]: file for file in catalog["weights"]}
    initial = model["initial_weights"].removeprefix("resnest://")
    for role, name in (
        ("trained", model["weights"] or "none published"),
        ("training starts from", initial or "random weights"),
    ):
        weights.append(f"{role}: {f'resnest://{name}' if name in files else name}")
        weights += [f"  {line}" for line in _mirrors(files[name])] if name in files else []
    sections = {
        "Result": _result(model),
        "Cost": _cost(model, catalog["measured"]),
        "Weights": weights,
        "Train": [model["train_command"]],
        "Evaluate": [model["eval_command"]],
    }
    if model["weights"]:
        sections["Evaluate, and compare with the quoted result"] = sections.pop("Evaluate")
        sections["Use"] = [f'resnest_d2.model_zoo.get("{model["name"]}")']
    for title, section in sections.items():
        lines += ["", title, *(f"  {line}" for line in section)]
    return "\n".join(lines)


def _result(model: dict) -> list[str]:
    published, gains = model["published"], model["gains"]
    if not published:
        return ["nothing was published"]
    parts = [
        f"{label} {published[key]:.2f}" + (f" ({gains[key]:+.2f})" if key in gains else "")
        for key, label in _RESULTS.items()
        if published[key] is not None
    ]
    baseline = f"; gains over {model['baseline']}, the same recipe" if model["baseline"] else ""
    where = "several scales" if published["miou"] else "COCO val2017, one scale"
    if published["top1"]:
        where = "ImageNet's validation set, one centre crop"
    quoted = f"quoted: {published['source']}; {where}"
    return [", ".join(parts) + baseline, quoted]


def _cost(model: dict, date: str) -> list[str]:
    cost = model["measured"]
    if cost is None:
        return [_NOT_MEASURED]
    latency, (height, width) = cost["latency_ms"], cost["image_size"]
    what = "the whole model" if cost["whole"] else "the backbone alone"
    return [
        f"{cost['params'] / 1e6:.1f} M parameters",
        f"{what}, an image of {height} x {width} pixels: "
        f"{cost['multiply_adds'] / 1e9:.1f} G multiply-adds; latency on a CPU: "
        + (_NOT_MEASURED if latency is None else f"{latency:.0f} ms"),
        f"measured: {'; '.join(cost['commands'])} ({date})",
    ]


def _mirrors(file: dict) -> list[str]:
    digits = f"sha256 {file['sha256']}…" if file["sha256"] else "no known hash"
    if file["sha1"]:
        digits = f"sha1 {file['sha1']}"
    note = f"; {file['note']}" if file["note"] else ""
    return [f"{file['format']} names, {file['license']}, {digits}{note}", *file["urls"]]


def _images(record: dict) -> str:
    statistics = record["statistics"]
    mean, std = (", ".join(f"{n:g}" for n in statistics[key]) for key in ("mean", "std"))
    return f"images: {statistics['format']}, mean {mean}, std {std}"
