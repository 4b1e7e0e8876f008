"""``replay``."""

import argparse
import json
import math

from ..text import printable
from .common import REFUSALS, refuse, say


def replay(args: argparse.Namespace) -> int:
    from ..engine.diagnosis.replay import replay

    try:
        found = replay(args.file, device=args.device)
    except REFUSALS as error:
        return refuse(error)
    if args.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        say("\n".join(map(printable, _describe(found))))
    return 0 if found.reproduced else 1


def _describe(found):
    """The findings, line by line."""
    yield (
        f"{found.file}: iteration {found.iteration}, micro-batch {found.micro_batch}, "
        f"the process of rank {found.rank}"
    )
    if found.reproduced:
        yield "reproduced: the loss is not finite again"
    else:
        yield "NOT reproduced: the passes give another result here"
        if found.synchronised:
            yield "  (training synchronised batch norms over processes, with more images)"
    yield f"{'loss':<20} {'then':>12} {'now':>12}"
    for name in {**found.then, **found.now}:
        then, now = (_number(losses.get(name)) for losses in (found.then, found.now))
        yield f"{name:<20} {then:>12} {now:>12}"
    for when, error in (("then", found.error_then), ("now", found.error)):
        if error:
            yield f"the forward pass failed {when}: {error}"
    if bad := found.bad_weights:
        more = ", …" if len(bad) > 5 else ""
        yield f"weights that are not finite: {len(bad)} ({', '.join(bad[:5])}{more})"
    if found.first_module:
        inputs = "finite" if found.inputs_finite else "not finite either"
        yield f"first module whose output is not finite: {found.first_module}; its inputs: {inputs}"
    else:
        yield "all modules' outputs are finite"
    yield "largest gradients:"
    for gradient in found.gradients:
        yield f"  {gradient.name}: {_number(gradient.value)}"
    yield "images:"
    for image in found.images:
        low, high = _number(image["minimum"]), _number(image["maximum"])
        bad = f", {image['not_finite']} VALUES NOT FINITE" if image["not_finite"] else ""
        yield (
            f"  {image['image_id']} ({image['file_name']}): values from {low} to {high}{bad}, "
            f"{image['boxes']} boxes"
        )
        for index, box in image["bad_boxes"].items():
            yield f"    box {index} IS INVALID: {', '.join(map(_number, box))}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.5g}" if math.isfinite(value) else str(value)
