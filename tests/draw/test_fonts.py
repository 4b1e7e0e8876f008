"""Names in any script: drawn with an installed font that has their letters, or one warning.

Which fonts are installed is not left to the machine: the only one is STIX, which matplotlib brings,
and the letter is one that it has and matplotlib's usual font lacks.
"""

import json
import os

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from detectron2.structures import BoxMode

from resnest_d2.draw import fonts
from resnest_d2.draw.charts import save_chart
from resnest_d2.draw.fonts import any_script, image_font
from resnest_d2.draw.instances import draw_annotations
from resnest_d2.draw.loss_curves import plot_losses
from resnest_d2.draw.sheet import draw_sheet
from resnest_d2.report.embed import chart_address

LETTER = "\u210a"
STIX = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "STIXGeneral.ttf")


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The list of installed font files, which a test may change; nothing has been searched yet."""
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    files = [str(tmp_path / "damaged.ttf"), str(tmp_path / "absent.ttf"), STIX]
    monkeypatch.setattr(fonts, "_fallbacks", fonts._Fallbacks())
    monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: files)
    return files


def _figure(name):
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot(title=f"{name} of a title")
    axes.plot([0, 1], label=name)
    axes.set_yticks([0, 1], ["plain", name])
    axes.legend()
    return figure, axes


def test_every_text_gets_the_fonts_that_its_letters_need(installed, caplog):
    figure, axes = _figure(LETTER)
    with any_script(figure):
        figure.canvas.draw()
    (plain, named), (legend,) = axes.get_yticklabels(), axes.get_legend().get_texts()
    for text in (named, legend, axes.title):
        assert text.get_fontfamily() == ["sans-serif", "STIXGeneral"]
    assert plain.get_fontfamily() == ["sans-serif"]
    assert not caplog.records


def test_letters_that_no_font_has_are_named_in_one_warning(installed, caplog, recwarn):
    installed.clear()
    for name in (LETTER, f"another {LETTER}"):
        figure, _ = _figure(name)
        with any_script(figure):
            figure.canvas.draw()
    (record,) = caplog.records
    assert LETTER in record.getMessage() and "fonts-noto-cjk" in record.getMessage()
    assert not [warning for warning in recwarn if "missing from" in str(warning.message)]


def _boxes(name):
    box = {"bbox": [5, 30, 60, 30], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    return draw_annotations(np.zeros((80, 120, 3), np.uint8), [box], [name])


def test_a_letter_is_drawn_not_a_box(installed, monkeypatch):
    drawn = _boxes(LETTER)
    installed.clear()
    monkeypatch.setattr(fonts, "_fallbacks", fonts._Fallbacks())
    assert (_boxes(LETTER) != drawn).any()


@pytest.fixture
def places(tmp_path):
    """Functions that draw a name, one for each way that a name comes into a file."""

    def losses(name):
        line = {"iteration": 1, "total_loss": 1.0, f"loss_{name}": 1.0}
        (tmp_path / "metrics.json").write_text(json.dumps(line))
        plot_losses(tmp_path / "metrics.json", tmp_path / "losses.png")

    def sheet(name):
        Image.new("RGB", (30, 20)).save(tmp_path / f"{name}.png")
        image = {"id": 1, "file_name": f"{name}.png", "width": 30, "height": 20}
        content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
        (tmp_path / "data.json").write_text(json.dumps(content))
        draw_sheet((tmp_path / "data.json", tmp_path))

    return {
        "boxes": _boxes,
        "chart": lambda name: save_chart(Figure(), tmp_path / "c.png", title=name, note="a"),
        "report": lambda name: chart_address(_figure(name)[0]),
        "losses": losses,
        "sheet": sheet,
    }


@pytest.mark.parametrize("place", ["boxes", "chart", "report", "losses", "sheet"])
def test_names_have_their_letters_everywhere(place, places, installed):
    places[place](LETTER)
    assert [font.family for font in fonts._fallbacks.fonts] == ["STIXGeneral"]


def test_pillow_takes_the_font_with_the_most_letters(installed):
    assert image_font("plain", 15).getname() == image_font("other", 15).getname()
    assert image_font("Имя", 15).getname()[0] == "DejaVu Sans"
    assert image_font(LETTER, 15).getname()[0] == "STIXGeneral"
    canvas = Image.new("L", (40, 30))
    ImageDraw.Draw(canvas).text((5, 5), LETTER, fill=255, font=image_font(LETTER, 15))
    assert np.asarray(canvas).any()


def test_fonts_are_searched_once_for_a_letter(installed, monkeypatch):
    for _ in range(2):
        _boxes(LETTER)
    monkeypatch.setattr(fonts, "_installed", None)
    _boxes(f"more {LETTER}")
