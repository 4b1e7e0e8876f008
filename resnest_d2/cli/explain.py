"""``explain``."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import printable
from .common import REFUSALS, data_pairs, not_written, refuse, say

if TYPE_CHECKING:
    from ..analysis.attention import BlockAttention, ClassAttention
    from ..predict.predictor import Predictor


def explain(args: argparse.Namespace) -> int:
    import torch

    from ..analysis.attention import NO_ATTENTION, attention_by_class, image_attention
    from ..analysis.saliency import check_saliency, follow_detections
    from ..data.folders.class_folders import read_folder_names
    from ..modeling.forward_parts import network_input
    from ..predict.predictor import Predictor

    by_class, block = None, ""
    try:
        args.data = args.data or next(iter(data_pairs(args, "val")), None)
        predictor = Predictor(
            args.checkpoint,
            config=args.config_file,
            device=args.device,
            score_threshold=args.score_threshold,
        )
        model = predictor.model
        check_saliency(model)
        if not Path(args.image).is_file():
            raise FileNotFoundError(f"no such file: {args.image}")
        inputs = predictor.preprocess(args.image)
        if predictor.segments or predictor.classifies:
            found = follow_detections(model, network_input(model, inputs)).instances.to("cpu")
        else:
            with torch.inference_mode():
                found = model([inputs])[0]["instances"].to("cpu")
        if args.detection is not None and not 0 <= args.detection < len(found):
            raise ValueError(
                f"--detection must be a number below {len(found)}, which were found, got "
                f"{args.detection}"
            )
        blocks = image_attention(model, inputs)
        if blocks:
            block = args.block or max(blocks, key=lambda name: blocks[name].selectivity.mean())
            blocks = image_attention(model, inputs, maps=[block])
        elif args.block or args.data:
            raise ValueError(f"--block and --val-json: {NO_ATTENTION}")
        if args.data:
            names = read_folder_names(args.classes) if args.classes else None
            by_class = attention_by_class(
                predictor, tuple(args.data), num_images=args.num_images, folder_names=names
            )
    except (*REFUSALS, ModuleNotFoundError) as error:
        return refuse(error)
    columns = (found.pred_classes, found.scores, found.pred_boxes.tensor)
    detections = [
        {"class": predictor.class_names[label], "score": score, "box": box}
        for label, score, box in zip(*(column.tolist() for column in columns), strict=True)
    ]
    record = {"image": args.image, "detections": detections, "files": []}
    if predictor.segments:  # classes in place of detections, in pixels of the resized image
        for own, area in zip(detections, found.regions.float().mean(dim=(1, 2)), strict=True):
            own["area"] = float(area)
    try:
        _write(record, args, predictor, inputs, block, blocks, by_class)
    except OSError as error:
        return not_written(args.out, error)
    if args.json:
        print(json.dumps(record, indent=2))
    elif not args.quiet:
        say(_text(record, args.score_threshold, classes=predictor.segments or predictor.classifies))
    return 0


def _write(
    record: dict[str, Any],
    args: argparse.Namespace,
    predictor: "Predictor",
    inputs: dict,
    block: str,
    blocks: dict[str, "BlockAttention"],
    by_class: "ClassAttention | None",
) -> None:
    """Write arrays and charts, and add their names and figures to the record."""
    from ..analysis.attention import save_attention
    from ..analysis.saliency import explain_detection
    from ..draw.explanations import plot_attention, plot_block, plot_class_attention, plot_saliency
    from ..modeling.forward_parts import network_input

    folder, model = Path(args.out), predictor.model
    folder.mkdir(parents=True, exist_ok=True)
    note = f"{args.image}, {args.checkpoint}"
    shown = inputs["image"].flip(0) if predictor.cfg.INPUT.FORMAT == "BGR" else inputs["image"]
    image = shown.byte().permute(1, 2, 0).numpy()  # (h, w, 3)

    def add(name: str) -> Path:
        record["files"].append(str(folder / name))
        return folder / name

    if blocks:
        record["block"] = block
        record["selectivity"] = {n: float(b.selectivity.mean()) for n, b in blocks.items()}
        save_attention(blocks, add("attention.npz"))
        plot_attention(blocks, image, add("attention_overview.png"), note=note)
        covered = network_input(model, inputs).tensor.shape[-2:]
        chart = add(f"attention_{block}.png")
        plot_block(block, blocks[block], image, chart, covered=covered, note=note)
    if by_class:
        by_class.save(add("attention_by_class.npz"))
        of_data = f"{len(by_class.holds)} images of {args.data[0]}, {args.checkpoint}"
        chart = add("attention_by_class.png")
        plot_class_attention(by_class, chart, block=block, note=of_data)
    if record["detections"]:
        number = args.detection or 0
        result = explain_detection(model, inputs, number)
        result.save(add(f"saliency_{number}.npz"))
        name, chart = predictor.class_names[result.label], add(f"saliency_{number}.png")
        plot_saliency(result, image, name, chart, note=note)
        record["saliency"] = own = {
            "detection": number,
            "baseline_score": result.baseline,
            "error": result.error,
        }
        if not predictor.classifies:  # a class has the whole image
            inside, area = result.share_inside()
            own |= {f"share_in_{result.place}": inside, f"area_of_{result.place}": area}


def _text(record: dict[str, Any], threshold: float, *, classes: bool) -> str:
    """
    Args:
        classes: of a label map or an image, in place of detections.
    """
    found = record["detections"]
    lines = [f"{record['image']}: {len(found)} {'classes' if classes else 'detections'}"]
    for i, own in enumerate(found):
        area = f", {own['area']:.0%} of the image" if "area" in own else ""
        lines.append(f"  {i} {printable(own['class'])} {own['score']:.2f}{area}")
    if "saliency" in record:
        own = record["saliency"]
        for place in ("box", "region"):
            if f"share_in_{place}" in own:
                lines.append(
                    f"{'class' if classes else 'detection'} {own['detection']}: "
                    f"{own[f'share_in_{place}']:.0%} of the saliency is in its {place}, "
                    f"{own[f'area_of_{place}']:.0%} of the image"
                )
    else:
        lines.append(f"no detection scores more than {threshold}: no saliency")
    if "block" in record:
        lines.append("selectivity by block, 0-1:")
        lines += [f"  {name} {value:.2f}" for name, value in record["selectivity"].items()]
    else:
        lines.append("the network has no split attention to show")
    return "\n".join([*lines, "written:", *(f"  {file}" for file in record["files"])])
