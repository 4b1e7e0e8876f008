"""Left and right keypoints are found by their names, and nothing is guessed."""

import pytest

from resnest_d2.data.flip_pairs import check_flip_pairs, flip_pairs, unpaired_names


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("L_eye", "R_eye"),
        ("Left eye", "Right eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("eye_l", "eye_r"),
        ("leftEye", "rightEye"),
        ("LEye", "REye"),
        ("lEye", "rEye"),
        ("eyeL", "eyeR"),
        ("lefteye", "righteye"),
        ("eye.L", "eye.R"),
        ("L", "R"),
        ("front-left-paw", "front-right-paw"),
        ("L1", "R1"),
    ],
)
def test_names_that_differ_in_their_side_are_a_pair(left, right):
    assert flip_pairs(["nose", right, left, "tail"]) == [(left, right)]
    assert unpaired_names(["nose", right, left], [(left, right)]) == []


@pytest.mark.parametrize(
    "names",
    [
        ["nose", "tail"],
        ["left_eye", "LEFT_EYE", "right_eye"],  # which of the two?
        ["l_upper_left", "r_upper_left", "l_upper_right", "r_upper_right"],  # a flip exchanges both
        ["color", "rocor"],
        ["左目", "右目"],
        ["left_eye", "right_ear"],
    ],
)
def test_what_names_do_not_say_is_not_guessed(names):
    assert flip_pairs(names) == []


def test_equal_names_and_names_of_many_sides_are_read_in_linear_time():
    assert flip_pairs(["left eye"] * 30_000 + ["right eye"] * 30_000) == []
    assert flip_pairs(["l " * 300_000, "r " * 300_000]) == []


def test_a_side_without_the_other_is_named():
    names = ["L_eye", "R_eye", "L_ear", "bright", "nose"]
    assert unpaired_names(names, flip_pairs(names)) == ["L_ear"]


def test_stated_pairs_must_be_pairs_of_the_data_sets_names():
    check_flip_pairs("KEY", [("a", "b")], ["a", "b", "c"])
    for pairs in ([("a",)], [("a", "x")], [("a", "a")], [("a", "b"), ("b", "c")]):
        with pytest.raises(ValueError, match="KEY must be pairs .* a, b, c"):
            check_flip_pairs("KEY", pairs, ["a", "b", "c"])
