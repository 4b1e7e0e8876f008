"""What files, folders and patterns stand for, and how their drawings are named."""

import pytest

from resnest_d2.predict.sources import drawing_names, find_images


@pytest.fixture
def tree(tmp_path):
    """Empty files: what is found depends on names alone."""
    for name in (
        *("a/1.jpg", "a/2.PNG", "a/notes.txt", "a/.hidden.jpg", "a/b/3.tif", "a/.cache/4.jpg"),
        *("c/1.jpg", "c/[5].jpg", "c/no_suffix", "out/1.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "root", "names"),
    [
        (["a"], "a", ["1.jpg", "2.PNG", "b/3.tif"]),
        (["a/1.jpg"], "a", ["1.jpg"]),
        (["a/notes.txt", "c/no_suffix"], "", ["a/notes.txt", "c/no_suffix"]),
        (["c/1.jpg", "a/1.jpg"], "", ["c/1.jpg", "a/1.jpg"]),
        (["a", "a/b", "a/1.jpg"], "a", ["1.jpg", "2.PNG", "b/3.tif"]),
        (["a/*.jpg"], "a", ["1.jpg"]),
        (["a/**/*.tif"], "a", ["b/3.tif"]),
        (["?/1.jpg"], "", ["a/1.jpg", "c/1.jpg"]),
        (["a/*"], "a", ["1.jpg", "2.PNG", "b/3.tif", "notes.txt"]),
        (["c/[5].jpg"], "c", ["[5].jpg"]),
        (["."], "", ["a/1.jpg", "a/2.PNG", "a/b/3.tif", "c/1.jpg", "c/[5].jpg"]),
    ],
)
def test_sources_stand_for_these_files(sources, root, names, tree, monkeypatch):
    monkeypatch.chdir(tree)
    found = find_images(sources, except_in="out")
    assert found.root == tree / root
    assert list(found.names) == names
    absolute = find_images([tree / source for source in sources], except_in=tree / "out")
    assert absolute == found


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        (["a", "none", "none/*.jpg"], FileNotFoundError, r"match: .*none, .*none/\*\.jpg"),
        (["a/.cache/../empty"], ValueError, "no images in .*empty.*\\.jpg"),
    ],
)
def test_sources_that_stand_for_nothing_are_refused(sources, error, message, tree):
    (tree / "a" / "empty").mkdir()
    with pytest.raises(error, match=message):
        find_images([tree / source for source in sources], except_in=tree / "out")


@pytest.fixture
def links(tree):
    """Links to nothing, to each other, to the folder that they are in, and to another one."""
    for link, target in {
        "a/gone.jpg": "nowhere.jpg",
        "a/x.jpg": "y.jpg",
        "a/y.jpg": "x.jpg",
        "a/b/up": "../../a",
        "a/b/here": ".",
        "c/back": "../a",
        "a/other": "../c",
    }.items():
        (tree / link).symlink_to(target)
    return tree


UP = [f"up/{name}" for name in ("1.jpg", "2.PNG", "gone.jpg", "notes.txt")]
UP += ["up/other/1.jpg", "up/other/[5].jpg", "up/other/no_suffix", "up/x.jpg", "up/y.jpg"]


@pytest.mark.parametrize(
    ("sources", "root", "names"),
    [
        (["a"], "a", ["1.jpg", "2.PNG", "gone.jpg", "x.jpg", "y.jpg", "b/3.tif"]),
        (["a/gone.jpg"], "a", ["gone.jpg"]),
        (["a/x.jpg", "c/1.jpg"], "", ["a/x.jpg", "c/1.jpg"]),
        (["a/g*.jpg", "a/[xy].jpg"], "a", ["gone.jpg", "x.jpg", "y.jpg"]),
        (["a/**/*.tif"], "a", ["b/3.tif"]),
        (["c/**/3.tif"], "c", ["back/b/3.tif"]),
        (["**/b/*.tif"], "", ["a/b/3.tif"]),
        (["a/b/**/**/*.tif", "a/b/*.tif"], "a/b", ["3.tif"]),
        (["c/back/b/**"], "c/back/b", ["3.tif", *UP]),
        (
            ["a/**/[1xg]*.jpg"],
            "a",
            ["1.jpg", "gone.jpg", "other/1.jpg", "x.jpg"],
        ),
    ],
)
def test_links_are_tried_like_files_and_never_go_round(sources, root, names, links, monkeypatch):
    monkeypatch.chdir(links)
    found = find_images(sources, except_in="out")
    assert (found.root, list(found.names)) == (links / root, names)
    assert find_images([links / s for s in sources], except_in=links / "out") == found


def test_pictures_that_share_a_stem_have_drawings_of_their_own():
    names = ["a/1.jpg", "b/1.jpg", "a/1.tif", "a/2.jpg", "A/2.png", "3.png", "3", "3.png.png"]
    drawings = drawing_names(names, "png", given={})
    assert list(drawings) == names
    assert [drawings["a/1.jpg"], drawings["a/1.tif"]] == ["a/1.jpg.png", "a/1.tif.png"]
    assert drawings["b/1.jpg"] == "b/1.png"
    assert len({name.casefold() for name in drawings.values()}) == len(names)


def test_drawings_keep_their_names_when_pictures_are_added():
    first = drawing_names(["1.jpg"], "jpg", given={})
    assert first == {"1.jpg": "1.jpg"}
    both = drawing_names(["1.jpg", "1.png"], "jpg", given=first)
    assert both == {"1.jpg": "1.jpg", "1.png": "1.png.jpg"}


def test_names_that_differ_in_case_and_suffix_alone_keep_their_suffixes():
    drawings = drawing_names(["a.jpg", "A.tif", "b.jpg"], "png", given={})
    assert drawings == {"a.jpg": "a.jpg.png", "A.tif": "A.tif.png", "b.jpg": "b.png"}
