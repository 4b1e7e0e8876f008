"""One reader: the same pixels in training, evaluation, prediction, the check and drawings."""

import json
import os
import struct
import threading
import time
import zlib
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from runs import tiny_request

from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T

from resnest_d2 import Predictor, get_config
from resnest_d2.data import build_test_loader, build_train_mapper, check_coco
from resnest_d2.data.batches.mapper import ImageMapper
from resnest_d2.data.check import image_files as check_image_files
from resnest_d2.data.image_reader import ImageError, read_image, read_mask
from resnest_d2.data.intensity import Intensity, ValueRange, fitting_keys
from resnest_d2.draw import instances as predictions
from resnest_d2.draw import sheet
from resnest_d2.draw.instances import save_comparisons
from resnest_d2.engine import prepare, run
from resnest_d2.engine.diagnosis.traps import find_traps
from resnest_d2.engine.training.lazy import _read_alike
from resnest_d2.evaluation.sem_seg_evaluator import read_labels_as
from resnest_d2.predict import many_files as predict_run
from resnest_d2.report import gallery
from resnest_d2_command import main

ORIENTATION = 0x0112
HEIGHT, WIDTH = 40, 64
Y, X = np.mgrid[:HEIGHT, :WIDTH]
GRAY = (2 * X + 3 * Y).astype(np.uint8)
RGB = np.dstack([4 * X, 6 * Y, GRAY]).astype(np.uint8)
ALPHA = (4 * X).astype(np.uint8)


def _exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def _tiff(values, kind):
    """A big-endian TIFF file of one strip; ``kind`` of samples: 1 unsigned, 2 signed, 3 float."""
    height, width = values.shape[:2]
    depth = values.dtype.itemsize * 8
    channels = values[0, 0].size
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: 2 if channels == 3 else 1}
    tags |= {273: 0, 277: channels, 278: height, 279: len(data), 339: kind}
    start = 8 + 2 + 12 * len(tags) + 4
    entries = lists = b""
    for tag, value in tags.items():
        if tag in (258, 339) and channels == 3:  # a value for each channel, all equal
            entries += struct.pack(">HHII", tag, 3, 3, start + len(lists))
            lists += struct.pack(">HHH", *[value] * 3)
        else:
            entries += struct.pack(">HHII", tag, 4, 1, value)
    strip = struct.pack(">HHI", 273, 4, 1)
    entries = entries.replace(strip + bytes(4), strip + struct.pack(">I", start + len(lists)))
    return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + entries + bytes(4) + lists + data


def _png16(values):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width = values.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[values[0, 0].size]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks.items())


def _write(name, path):
    """Write a file of the table; return what it shows, RGB or gray; of CMYK None."""
    sixteen = GRAY.astype(np.uint16) * 257
    image, gray = Image.fromarray(RGB), Image.fromarray(GRAY)
    if name in ("exif.jpg", "orientation.tif"):
        image.save(path, exif=_exif(6))
        turned = Image.open(path)
        turned.load()
        return RGB[::-1].transpose(1, 0, 2) if name.endswith("tif") else np.rot90(turned, -1)
    if name == "palette.png":
        indices = (X // 8).astype(np.uint8)
        image = Image.fromarray(indices, "P")
        image.putpalette([10 * value for value in range(24)])
        image.save(path, transparency=bytes([0, 255] * 4))
        colours = 10 * np.arange(24).reshape(8, 3)
        colours[::2] = 255
        return colours[indices]
    if name in ("rgba.png", "la.png"):
        below = RGB if name == "rgba.png" else GRAY[..., None]
        Image.fromarray(np.dstack([below, ALPHA])).save(path)
        share = ALPHA[..., None] / 255
        return below * share + 255 * (1 - share)
    if name == "cmyk.jpg":
        image.convert("CMYK").save(path)
        return None
    content = {
        "rgb.png": image,
        "gray.png": gray,
        "16.png": _png16(sixteen),
        "16_colour.png": _png16(RGB.astype(np.uint16) * 257),
        "16_little.tif": Image.fromarray(sixteen),
        "16_big.tif": _tiff(sixteen, 1),
        "16_colour.tif": _tiff(RGB.astype(np.uint16) * 257, 1),
        "32.tif": Image.fromarray(sixteen.astype(np.int32)),
        "float.tif": Image.fromarray((GRAY / 255).astype(np.float32)),
        "float_big.tif": _tiff((GRAY / 255).astype(np.float32), 3),
        "16.pgm": b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + sixteen.astype(">u2").tobytes(),
    }[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)
    return RGB if name.startswith(("rgb", "16_colour")) else GRAY


FILES = ["rgb.png", "gray.png", "palette.png", "rgba.png", "la.png", "cmyk.jpg", "16.png"]
FILES += ["16_colour.png", "16_little.tif", "16_big.tif", "16_colour.tif", "32.tif", "float.tif"]
FILES += ["float_big.tif", "16.pgm", "exif.jpg", "orientation.tif"]


@pytest.fixture(scope="module")
def cfg():
    """Nothing is resized or flipped."""
    opts = ("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TRAIN", "(40, 40)", "INPUT.MIN_SIZE_TEST", "40")
    opts += ("INPUT.RANDOM_FLIP", "none", "DATALOADER.NUM_WORKERS", "0")
    return get_config("faster_rcnn_resnest50_fpn", opts)


@pytest.fixture
def data_set(tmp_path):
    """A function that registers a file as a data set of one image, with nothing in it."""
    name = f"one_reader_{tmp_path}"

    def register(path):
        record = {"file_name": str(path), "image_id": 1, "annotations": []}
        DatasetCatalog.register(name, lambda: [record])
        MetadataCatalog.get(name).thing_classes = ["a"]
        return name, record

    yield register
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def _predictor(cfg):
    """What of a predictor makes the network's input."""
    predictor = object.__new__(Predictor)
    predictor.classifies = False
    predictor.cfg, predictor.intensity = cfg, Intensity.from_config(cfg)
    predictor._resize = T.ResizeShortestEdge([40, 40], 1333)
    return predictor


def _channels_last(example):
    return example["image"].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("rule", [("type", ()), ("range", (0, 4095))])
@pytest.mark.parametrize("name", FILES)
def test_training_evaluation_prediction_and_drawings_have_the_same_pixels(
    name, rule, cfg, data_set, tmp_path, monkeypatch
):
    cfg = cfg.clone()
    cfg.RESNEST.INTENSITY.RULE, cfg.RESNEST.INTENSITY.RANGE = rule
    path = tmp_path / name
    shown = _write(name, path)
    registered, record = data_set(path)
    seen = {
        "train": _channels_last(build_train_mapper(cfg)(record)),
        "evaluate": _channels_last(next(iter(build_test_loader(cfg, registered)))[0]),
        "predict": _channels_last(_predictor(cfg).preprocess(path)),
    }

    def draw(image, *args, **kwargs):
        seen["show"] = image
        return image

    monkeypatch.setattr(sheet, "draw_annotations", draw)
    sheet._draw_record(record, ["a"], Intensity(*rule))

    def compare(image, *args, **kwargs):
        seen["compare"] = image
        return image

    monkeypatch.setattr(predictions, "draw_comparison", compare)
    monkeypatch.setattr(predictions, "register_coco", lambda *data: registered)
    seen["predict files"] = predict_run._read(tmp_path, name, Intensity(*rule)).image.pixels
    predict = Mock(intensity=Intensity(*rule))
    save_comparisons(predict, ("", ""), tmp_path / "drawn")
    seen["compare, predicted"] = predict.call_args.args[0]
    images = {1: {"file_name": name}}
    evaluated = SimpleNamespace(
        config=cfg, image_root=tmp_path, truth=SimpleNamespace(coco=SimpleNamespace(imgs=images))
    )
    seen["report"] = gallery._read(evaluated, 1)

    first = seen.pop("train")
    for reader, pixels in seen.items():
        np.testing.assert_array_equal(pixels, first, err_msg=reader)
    if shown is not None and rule[0] == "type":
        shown = shown if shown.ndim == 3 else shown[..., None]
        assert np.abs(first - np.broadcast_to(shown, first.shape)).max() <= 1


@pytest.mark.parametrize("form", ["RGB", "BGR", "L", "YUV-BT.601"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_of_8_bits_the_mapper_gives_what_detectron2s_gives(mode, form, cfg, tmp_path):
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.fromarray(RGB).convert(mode).save(path)
    record = {"file_name": str(path), "width": WIDTH, "height": HEIGHT, "annotations": []}
    cfg = cfg.clone()
    cfg.INPUT.FORMAT = form
    ours, theirs = build_train_mapper(cfg)(record), DatasetMapper(cfg, is_train=True)(record)
    np.testing.assert_array_equal(ours["image"], theirs["image"])
    assert ours.keys() == theirs.keys()


def test_a_network_that_takes_transparency_as_a_channel_is_given_it(cfg, tmp_path):
    _write("rgba.png", tmp_path / "a.png")
    mapper = ImageMapper(is_train=False, augmentations=[], image_format="RGBA")
    image = _channels_last(mapper({"file_name": str(tmp_path / "a.png")}))
    np.testing.assert_array_equal(image, np.dstack([RGB, ALPHA]))


@pytest.mark.parametrize(
    ("rule", "values", "shown"),
    [
        (("type",), np.uint16([0, 128, 129, 65535]), [0, 0, 1, 255]),
        (("type",), np.int32([-5, 257, 65535, 70000]), [0, 1, 255, 255]),
        (("type",), np.float32([-1, 0, 0.5, 1, 2]), [0, 0, 128, 255, 255]),
        (("none",), np.uint16([0, 7, 255, 256]), [0, 7, 255, 255]),
        (("none",), np.float32([-1, 7.9, 300]), [0, 7, 255]),
        (("range", (0, 4095)), np.uint16([0, 2048, 4095, 5000]), [0, 128, 255, 255]),
        (("range", (-1000, 1000)), np.int32([-2000, -1000, 0, 1000]), [0, 0, 128, 255]),
        (("percentile", (0, 100)), np.float32([5, 6, 7]), [0, 128, 255]),
        (("percentile",), np.uint16([9] * 3), [0, 0, 0]),
        (("percentile",), np.float32([np.nan, np.inf]), [0, 255]),
        (("type",), np.float32([np.nan, np.inf, -np.inf, 1]), [0, 255, 0, 255]),
        (("percentile", (0, 100)), np.float32([np.nan, 1, 2, 3, -np.inf]), [0, 0, 128, 255, 0]),
        (("range", (2, 4)), np.float32([np.nan, np.inf, 3]), [0, 255, 128]),
    ],
)
def test_each_rule_has_its_black_and_white(rule, values, shown):
    assert Intensity(*rule).apply(values[None])[0].tolist() == shown


def test_two_percentages_leave_out_the_outliers_of_each_image():
    values = np.r_[0, np.linspace(1000, 1100, 998), 65535].astype(np.uint16)[None]
    shown = Intensity("percentile").apply(values)
    assert (shown[0, 0], shown[0, -1]) == (0, 255) and 120 < np.median(shown) < 136


@pytest.mark.parametrize("name", ["png", "tif"])
@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_are_read_in_full_where_the_rule_needs_it(name, alpha, tmp_path):
    values = 16 * RGB.astype(np.uint16) + 7  # 12 bits
    if alpha and name == "tif":
        pytest.skip("is written by few programs")
    stored = np.dstack([values, np.full_like(values[..., :1], 65535)]) if alpha else values
    path = tmp_path / f"image.{name}"
    path.write_bytes(_png16(stored) if name == "png" else _tiff(stored, 1))
    shown = read_image(path, Intensity("range", (0, 4095))).pixels
    np.testing.assert_array_equal(shown, np.rint(values * (255 / 4095)))


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        (("levels", ()), "RULE must be one of"),
        (("type", (0, 1)), "RANGE must be empty, where RESNEST.INTENSITY.RULE is 'type'"),
        (("none", (0, 1)), "RANGE must be empty"),
        (("range", ()), "RANGE must be two numbers"),
        (("range", (5, 5)), "RANGE must be two numbers"),
        (("range", (0, float("inf"))), "RANGE must be two numbers"),
        (("range", ("0", "9")), "RANGE must be two numbers"),
        (("percentile", (-1, 99)), "RANGE must be empty, or two percentages"),
        (("percentile", (99, 1)), "RANGE must be empty, or two percentages"),
    ],
)
def test_a_rule_that_cannot_be_names_its_key(rule, key):
    with pytest.raises(ValueError, match=f"RESNEST.INTENSITY.{key}.*got"):
        Intensity(*rule)


def test_a_run_with_a_rule_that_cannot_be_is_refused(twelve_bits, tmp_path):
    rule = ("RESNEST.INTENSITY.RULE", "levels")
    with pytest.raises(ValueError, match="RESNEST.INTENSITY.RULE must be one of"):
        prepare(tiny_request({"train": twelve_bits, "val": twelve_bits}, tmp_path, *rule))


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        (("16-bit", 0, 4000), 'range RESNEST.INTENSITY.RANGE "(0, 4095)"'),
        (("16-bit", 3, 240), "none"),
        (("16-bit", 0, 9), 'range RESNEST.INTENSITY.RANGE "(0, 9)"'),
        (("16-bit", 0, 8191), None),
        (("16-bit", 0, 8192), None),
        (("32-bit", -1024, 3071), 'range RESNEST.INTENSITY.RANGE "(-1024, 3071)"'),
        (("32-bit", 0, 300000), 'range RESNEST.INTENSITY.RANGE "(0, 300000)"'),
        (("float", 0, 255), "none"),
        (("float", 0, 1.005), None),
        (("float", -0.5, 1), 'range RESNEST.INTENSITY.RANGE "(-0.5, 1)"'),
        (("float", 0.3, 0.35), 'range RESNEST.INTENSITY.RANGE "(0.3, 0.35)"'),
        (("float", 7, 7), "percentile"),
    ],
)
def test_values_that_the_rule_spoils_are_named_with_fitting_keys(values, keys):
    seen = ValueRange(*values)
    if keys is None:
        assert bool(Intensity().misfit(seen)) == (seen.high == 8191)
        return
    assert Intensity().misfit(seen).startswith(str(seen))
    assert fitting_keys([seen]) == f"RESNEST.INTENSITY.RULE {keys}"
    rule, _, limits = keys.partition(" RESNEST.INTENSITY.RANGE ")
    fitting = Intensity(
        rule, tuple(json.loads(limits.strip('"').translate({40: 91, 41: 93}) or "[]"))
    )
    assert not fitting.misfit(seen)


def test_the_start_of_training_warns_of_values_that_do_not_fit():
    cfg = get_config("mask_rcnn_resnest50_fpn", ("DATASETS.TEST", "('any',)"))
    data = SimpleNamespace(images=1000, empty_classes=[], class_names=(), instances=None)
    seen = [ValueRange("16-bit", 0, 4000, images=5)]
    warning, *_ = [text for text in find_traps(cfg, data=data, seen=seen) if "INTENSITY" in text]
    assert "16-bit values from 0 to 4000 in 5 images" in warning
    assert 'RESNEST.INTENSITY.RULE range RESNEST.INTENSITY.RANGE "(0, 4095)"' in warning
    cfg.RESNEST.INTENSITY.RULE, cfg.RESNEST.INTENSITY.RANGE = "range", (0, 4095)
    assert not [text for text in find_traps(cfg, data=data, seen=seen) if "INTENSITY" in text]


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory):
    """Four images of 12 bits in 16, in COCO's format."""
    folder = tmp_path_factory.mktemp("twelve")
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(1, 5):
        values = 16 * GRAY.astype(np.uint16) // number
        Image.fromarray(values).save(folder / "images" / f"{number}.png")
        size = {"width": WIDTH, "height": HEIGHT}
        images.append({"id": number, "file_name": f"{number}.png", **size})
        box = {"bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0, "category_id": 1}
        box["segmentation"] = [[8, 8, 28, 8, 28, 28, 8, 28]]
        annotations.append({"id": number, "image_id": number, **box})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "a"}]
    (folder / "data.json").write_text(json.dumps(content))
    return str(folder / "data.json"), str(folder / "images")


def test_the_check_warns_once_of_values_that_do_not_fit(twelve_bits):
    (problem,) = check_coco(*twelve_bits)
    assert (problem.kind, problem.severity, problem.id) == ("unusual-values", "warning", None)
    assert "RESNEST.INTENSITY.RULE range" in problem.value and "in 4 images" in problem.value


def test_a_sheet_is_drawn_by_the_rule_that_is_asked_for(twelve_bits, tmp_path):
    shown = {}
    for rule in ("type", "range 0 4095"):
        out = tmp_path / "sheet.png"
        command = ["data", "show", *twelve_bits, "--out", str(out), "--intensity", *rule.split()]
        assert main(command) == 0
        shown[rule] = np.asarray(Image.open(out))[20, 200]
    assert shown["type"].max() < 10 < 60 < shown["range 0 4095"].min()
    assert main([*command, "--intensity", "range", "9", "0"]) == 2


def test_the_rule_of_training_is_reported_and_is_that_of_prediction(twelve_bits, tmp_path, caplog):
    caplog.set_level("INFO")
    rule = ("RESNEST.INTENSITY.RULE", "range", "RESNEST.INTENSITY.RANGE", "(0, 60000)")
    data = {"train": twelve_bits, "val": twelve_bits}
    opts = ("SOLVER.MAX_ITER", "1", "TEST.PRECISE_BN.ENABLED", "False")
    run(tiny_request(data, tmp_path / "run", *opts, *rule, val=()))
    assert "rule range (0, 60000); a sample has 16-bit values from 0 to " in caplog.text
    assert (
        'Fitting: RESNEST.INTENSITY.RULE range RESNEST.INTENSITY.RANGE "(0, 4095)"' in caplog.text
    )
    predictor = Predictor(tmp_path / "run", device="cpu")
    path = os.path.join(twelve_bits[1], "1.png")
    mapper = ImageMapper(predictor.cfg, is_train=False)
    expected = mapper({"file_name": path})["image"]
    np.testing.assert_array_equal(predictor.preprocess(path)["image"], expected)
    assert expected.max() == round(255 * 16 * int(GRAY.max()) / 60000)

    caplog.clear()
    weights = ("MODEL.WEIGHTS", str(tmp_path / "run"))
    run(tiny_request(data, tmp_path / "other", *weights, train=(), eval_only=True))
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("RESNEST.INTENSITY.RULE is type, and the weights" in text for text in warned)


def test_a_lazy_configs_mappers_read_alike_by_the_rule_of_the_training_mapper():
    mapper = LazyCall(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB")
    named = {**mapper, "_target_": "detectron2.data.dataset_mapper.DatasetMapper"}
    trained = {**named, "intensity_rule": "range", "intensity_range": [0, 4095]}
    own = {"_target_": "user.Mapper"}
    loaders = OmegaConf.create({"train": {"mapper": trained}}, flags={"allow_objects": True})
    loaders.test = {"mapper": mapper}
    _read_alike(loaders)
    for part in ("train", "test"):
        made = instantiate(loaders[part].mapper)
        assert type(made) is ImageMapper and made.intensity == Intensity("range", (0, 4095))
    loaders.train.mapper = own
    _read_alike(loaders)
    assert loaders.train.mapper == own
    _read_alike(OmegaConf.create({"test": {}}))
    loaders.train.mapper = {**named, "intensity_rule": "levels"}
    with pytest.raises(ValueError, match="must be one of"):
        _read_alike(loaders)


def test_a_semantic_mask_is_read_as_classes_whatever_its_mode(tmp_path):
    classes = np.array([[0, 1, 7, 255]], np.uint8)
    images = {"L": Image.fromarray(classes), "I;16": Image.fromarray(classes.astype(np.uint16))}
    images["P"] = Image.fromarray(classes, "P")
    images["P"].putpalette([200 - value % 200 for value in range(768)])
    images["RGB"] = images["L"].convert("RGB")
    for mode, image in images.items():
        image.save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png").tolist() == classes.tolist(), mode
        assert read_labels_as(tmp_path / "mask.png", int).tolist() == classes.tolist(), mode
    images["I;16"].point(lambda value: 300).save(tmp_path / "mask.png")
    Image.fromarray(np.full((1, 4), 300, np.uint16)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[255] * 4]
    Image.fromarray(classes > 1).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [[0, 0, 1, 1]]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 40\n%%EndComments\n"


def _unread(kind, path):
    """Put something at a path that is not to be read."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "EPS":
        path.write_bytes(EPS)
    elif kind == "FITS":
        cards = ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 64", "NAXIS2  = 40", "END")
        path.write_bytes(
            "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)
        )
    else:
        Image.fromarray(RGB).save(path, format=kind)


@pytest.mark.parametrize(
    "kind", ["EPS", "FITS", "PCX", "ICO", "TGA", "SGI", "fifo", "link to a device"]
)
def test_other_formats_and_what_is_no_file_are_read_nowhere(
    kind, cfg, data_set, twelve_bits, tmp_path
):
    path = tmp_path / "1.png"
    _unread(kind, path)
    registered, record = data_set(path)
    with pytest.raises(ImageError, match=r"1\.png"):
        build_train_mapper(cfg)(record)
    with pytest.raises(OSError, match=r"1\.png \(image id 1\) cannot be read: it is "):
        next(iter(build_test_loader(cfg, registered)))
    with pytest.raises(ImageError, match=r"1\.png"):
        read_mask(path)
    assert sheet._draw_record(record, ["a"], Intensity()).size == (420, 210)
    if not path.is_file():
        with pytest.raises(ImageError, match=r"1\.png"):
            check_image_files.file_digests([str(path)])
    for number in (2, 3, 4):
        os.link(os.path.join(twelve_bits[1], f"{number}.png"), tmp_path / f"{number}.png")
    found = {(problem.kind, problem.id) for problem in check_coco(twelve_bits[0], tmp_path)}
    assert ("not-an-image", 1) in found


def test_the_check_turns_a_tiff_file_once(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.tif", exif=_exif(6))
    entry = check_image_files.ImageEntry(0, 1, "a.tif", (HEIGHT, WIDTH))
    assert check_image_files.check_image_files("a.json", str(tmp_path), [entry]) == []


def test_images_are_decoded_together_only_within_a_number_of_pixels():
    budget, lock = check_image_files._Budget(100), threading.Lock()
    taken, most, done = [0], [0], []

    def work(amount):
        with budget.take(amount):
            with lock:
                taken[0] += min(amount, 100)
                most[0] = max(most[0], taken[0])
            time.sleep(0.01)
            with lock:
                taken[0] -= min(amount, 100)
                done.append(amount)

    amounts = [30, 60, 100, 500, 1, 45] * 3
    threads = [threading.Thread(target=work, args=(amount,)) for amount in amounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(amounts) and 45 <= most[0] <= 100


def test_the_check_decodes_within_its_budget(tmp_path, monkeypatch):
    taken = []
    take = check_image_files._Budget.take
    monkeypatch.setattr(
        check_image_files._Budget, "take", lambda self, n: taken.append(n) or take(self, n)
    )
    for number in range(3):
        Image.fromarray(RGB).save(tmp_path / f"{number}.png")
    with open(tmp_path / "0.png", "ab") as file:
        file.write(b"more")  # so that it is decoded
    entries = [check_image_files.ImageEntry(n, n, f"{n}.png", (WIDTH, HEIGHT)) for n in range(3)]
    assert check_image_files.check_image_files("a.json", str(tmp_path), entries) == []
    assert taken == [WIDTH * HEIGHT]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"RESNEST": 3}, "RESNEST must hold keys"),
        ({"RESNEST": {"INTENSITY": None}}, "INTENSITY must hold keys"),
        ({"RESNEST": {"INTENSITY": {"RULE": "range", "RANGE": 3}}}, "RANGE must be a list"),
    ],
)
def test_a_rule_of_wrong_types_is_refused_with_its_key(config, named):
    with pytest.raises(ValueError, match=named):
        Intensity.from_config(CfgNode(config))
