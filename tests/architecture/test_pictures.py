"""The pictures of the documentation show what is there now."""

import pytest
from pictures.gallery import FOLDER, PICTURES
from pictures.runs import ARROWS, SAGAS, transitions


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_would_be_drawn_now(name):
    assert (FOLDER / f"{name}.svg").read_text() == PICTURES[name]().svg(), "run `make pictures`"


def test_every_picture_in_the_folder_is_drawn():
    assert {path.stem for path in FOLDER.glob("*.svg")} == {*PICTURES}


def test_every_arrow_of_the_life_of_a_run_is_a_transition_of_the_engine():
    assert {*ARROWS} == {pair for text in SAGAS for pair in transitions(text)}
