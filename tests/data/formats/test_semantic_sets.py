"""Label maps that count from 1, and the data sets that have them."""

import numpy as np
import pytest
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog

from resnest_d2 import get_config
from resnest_d2.data import require_registered, write_labels_from_zero
from resnest_d2.data.formats.semantic_sets import register_pascal_context


def test_labels_are_written_from_zero(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "annotations" / "a").mkdir(parents=True)
    Image.fromarray(values).save(tmp_path / "annotations" / "a" / "1.png")
    write_labels_from_zero(tmp_path / "annotations", tmp_path / "new")
    written = np.asarray(Image.open(tmp_path / "new" / "a" / "1.png")).astype(int)
    assert (written.ravel()[1:] == np.arange(255)).all() and written[0, 0] == 255
    with pytest.raises(FileExistsError, match="new exists"):
        write_labels_from_zero(tmp_path / "annotations", tmp_path / "new")
    Image.fromarray(values.astype(np.uint16) + 200).save(tmp_path / "annotations" / "2.png")
    with pytest.raises(ValueError, match=r"2\.png has the value 455"):
        write_labels_from_zero(tmp_path / "annotations", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(FileNotFoundError, match="no PNG file"):
        write_labels_from_zero(tmp_path / "new" / "b", tmp_path / "other")


def test_the_recipes_data_sets_are_known_and_their_trees_are_shown():
    for name in ("ade20k", "pcontext", "cityscapes"):
        cfg = get_config(f"deeplabv3_resnest50_{name}")
        for data_set in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            classes = MetadataCatalog.get(data_set).stuff_classes
            assert len(classes) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    with pytest.raises(FileNotFoundError, match=r"(?s)Context_detectron2/\*\.png.*from_zero"):
        require_registered(["pascal_context_59_sem_seg_val"])


def test_pascal_context_is_read_from_its_tree(tmp_path, monkeypatch):
    folder = tmp_path / "VOCdevkit" / "VOC2010"
    (folder / "ImageSets" / "SegmentationContext").mkdir(parents=True)
    (folder / "ImageSets" / "SegmentationContext" / "val.txt").write_text("2008_1\n2008_2\n")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    name = "pascal_context_59_sem_seg_val"
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    register_pascal_context()
    records = DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == ["2008_1", "2008_2"]
    assert records[0]["file_name"] == f"{folder}/JPEGImages/2008_1.jpg"
    assert records[0]["sem_seg_file_name"].endswith("Context_detectron2/2008_1.png")
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
    monkeypatch.undo()
    register_pascal_context()
