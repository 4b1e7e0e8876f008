"""The catalog as text for a terminal."""

from collections.abc import Iterable

from tabulate import tabulate

from . import MEASURED, WEIGHTS, Model, WeightFile

__all__ = ["describe_model", "describe_weights", "model_table"]

NOT_MEASURED = "not yet measured"


def model_table(models: Iterable[Model]) -> str:
    """One line a model: published AP and PQ, the gain over its baseline, parameters."""

    def text(value: float | None, form: str = ".2f") -> str:
        return "–" if value is None else format(value, form)

    rows = []
    for model in models:
        row = [model.name]
        for key in ("box_ap", "mask_ap"):
            row += [text(getattr(model.published, key, None)), text(model.gains.get(key), "+.2f")]
        row += [text(getattr(model.published, "pq", None))]
        rows.append([*row, text(model.measured and model.measured.params / 1e6, ".1f")])
    headers = ["model", "box AP", "gain", "mask AP", "gain", "PQ", "M params"]
    return tabulate(rows, headers, colalign=("left", *["right"] * 6), disable_numparse=True)


def describe_model(model: Model) -> str:
    """All that the catalog has on a model: figures, weights, commands."""
    lines = [f"{model.name}: {model.method} on {model.backbone} ({model.task})"]
    if model.note:
        lines.append(f"  {model.note}")
    if model.aliases:
        lines.append(f"  in the original plugin: {', '.join(model.aliases)}")
    lines += ["", "Result", f"  {_result(model)}"]
    if model.published:
        lines.append(f"  quoted: {model.published.source}; COCO val2017, one scale")
    lines += ["", "Cost", *(f"  {line}" for line in _cost(model))]
    lines += ["", "Weights"]
    lines += [f"  images: {_statistics(model.statistics)}"]
    for role, name in (("trained", model.weights), ("training starts from", model.initial_weights)):
        name = (name or "none published").removeprefix("resnest://")
        lines.append(f"  {role}: {f'resnest://{name}' if name in WEIGHTS else name}")
        if name in WEIGHTS:
            lines += [f"    {line}" for line in _file(WEIGHTS[name])]
    evaluate = "Evaluate, and compare with the quoted result" if model.weights else "Evaluate"
    lines += ["", "Train", f"  {model.train_command}", "", evaluate, f"  {model.eval_command}"]
    if model.weights:
        lines += ["", "Use", f'  resnest_d2.model_zoo.get("{model.name}")']
    return "\n".join(lines)


def describe_weights(file: WeightFile) -> str:
    """A file of weights, its mirrors, and what it expects."""
    lines = [f"resnest://{file.name}", f"images: {_statistics(file.statistics)}", *_file(file)]
    return "\n  ".join(lines)


def _result(model: Model) -> str:
    if not model.published:
        return "nothing was published"
    parts = []
    for key, label in (("box_ap", "box AP"), ("mask_ap", "mask AP"), ("pq", "PQ")):
        value, gain = getattr(model.published, key), model.gains.get(key)
        if value is not None:
            parts.append(f"{label} {value:.2f}" + (f" ({gain:+.2f})" if gain is not None else ""))
    over = f"; gains over {model.baseline}, the same recipe" if model.baseline else ""
    return ", ".join(parts) + over


def _cost(model: Model) -> list[str]:
    cost = model.measured
    if cost is None:
        return [NOT_MEASURED]
    latency = NOT_MEASURED if cost.latency_ms is None else f"{cost.latency_ms:.0f} ms"
    height, width = cost.image_size
    return [
        f"{cost.params / 1e6:.1f} M parameters",
        f"the backbone alone, an image of {height} x {width} pixels: "
        f"{cost.multiply_adds / 1e9:.1f} G multiply-adds; latency on a CPU: {latency}",
        f"measured: {'; '.join(cost.commands)} ({MEASURED['counts']['date']})",
    ]


def _statistics(statistics) -> str:
    def values(numbers) -> str:
        return ", ".join(f"{number:g}" for number in numbers)

    return f"{statistics.format}, mean {values(statistics.mean)}, std {values(statistics.std)}"


def _file(file: WeightFile) -> list[str]:
    digits = f"sha256 {file.sha256}…" if file.sha256 else "no known hash"
    note = f"; {file.note}" if file.note else ""
    return [f"{file.format} names, {file.license}, {digits}{note}", *file.urls]
