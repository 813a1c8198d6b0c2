"""What the page draws itself never lets text become code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studio.ui.components import static_html

FOLDER = Path(static_html.FOLDER)
NAMES = sorted(path.stem for path in FOLDER.glob("*.html"))
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.js"))


def test_there_are_components() -> None:
    assert {"step_timeline", "live_status", "queue_list", "run_grid"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_templates_are_static(name: str) -> None:
    template = (FOLDER / f"{name}.html").read_text(encoding="utf-8")
    assert "{{" not in template
    assert "${" not in template


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_has_a_way_to_make_markup_of_text(name: str) -> None:
    script = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert way_in not in script, f"{name}.js uses {way_in}"


def test_every_script_is_some_components() -> None:
    whole = "".join(static_html.script_of(name) for name in NAMES)
    assert not [name for name in SCRIPTS if (FOLDER / f"{name}.js").read_text(encoding="utf-8") not in whole]


@pytest.mark.parametrize("file", [*(f"{name}.html" for name in NAMES), *(f"{name}.js" for name in SCRIPTS)])
def test_no_component_names_another_host(file: str) -> None:
    assert not re.search(r"https?://", (FOLDER / file).read_text(encoding="utf-8"))


def test_a_template_that_interpolates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_html, "FOLDER", tmp_path)
    (tmp_path / "bad.html").write_text("<p>${value}</p>", encoding="utf-8")
    (tmp_path / "bad.js").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="interpolates"):
        static_html.StaticHtml("bad")(elem_id="bad")


def test_importing_the_components_leaves_no_files_behind() -> None:
    assert not list(FOLDER.parent.rglob("*.pyi"))


def test_the_style_sheet_fetches_nothing() -> None:
    style = (FOLDER.parent / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", style)
