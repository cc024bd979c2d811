"""Diagrams that compare representations."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from farl_lightning.visualization.comparison import Series, comparison_svg

LINES = [Series("one", [10.0, 100.0], [1.0, 2.0], [0.1, 0.2]), Series("two", [10.0], [1.5], [0.0])]


def test_a_drawing_is_whole_and_always_the_same():
    text = comparison_svg(LINES, title="Parsing", label="f1 %")
    assert text == comparison_svg(LINES, title="Parsing", label="f1 %")
    root = ET.fromstring(text)  # noqa: S314  # our own
    assert root.tag.endswith("svg")
    assert text != comparison_svg([LINES[0]], title="Parsing", label="f1 %")


def test_names_are_drawn_as_outlines_alone():
    text = comparison_svg([Series("<script>$x$", [100.0], [1.0], [0.0])], title='"><b>')
    names = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}  # noqa: S314
    assert "script" not in names
    assert "text" not in names
    assert "image" not in names
