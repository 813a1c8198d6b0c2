"""How the page looks: a neutral desk on which only the measurements have colour.

Figures and what can be pressed are ink; the hues belong to the step timeline, where daylight blue is computed and
tungsten amber is reused (the two white balances of a film set), each with a hatch of its own. Knows Gradio's theme
variables and the style sheet beside it. Refuses to name a colour (`palette`), and to fetch a font: IBM Plex comes with
Gradio.
"""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, sizes
from gradio.themes.utils.fonts import LocalFont

from studio import palette

STYLE_SHEETS = (palette.STYLE_SHEET, Path(__file__).parent / "style.css")

HEAD = """
<meta name="color-scheme" content="light dark">
<script>
document.addEventListener('loadstart', (event) => {
  if (event.target instanceof HTMLVideoElement) event.target.muted = true;
}, true);
// Clips loop by themselves; whoever asked their system for less motion starts them by hand.
document.addEventListener('play', (event) => {
  const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const asked = navigator.userActivation && navigator.userActivation.isActive;
  if (calm && !asked && event.target instanceof HTMLVideoElement) event.target.pause();
}, true);
</script>
"""

_SIZE = sizes.Size(xxs="10px", xs="11px", sm="12px", md="14px", lg="15px", xl="19px", xxl="24px", name="dailies")


COLOURS = {
    "body_background_fill": "desk",
    "body_text_color": "ink",
    "body_text_color_subdued": "soft",
    "background_fill_primary": "paper",
    "background_fill_secondary": "panel",
    "border_color_primary": "line",
    "border_color_accent": "focus",
    "color_accent_soft": "focus-soft",
    "input_background_fill": "field",
    "input_border_color": "field-line",
    "input_border_color_focus": "focus",
    "input_placeholder_color": "faint",
    "button_primary_background_fill": "ink",
    "button_primary_background_fill_hover": "ink-hover",
    "button_primary_border_color": "ink",
    "button_primary_text_color": "on-ink",
    "button_secondary_background_fill": "button",
    "button_secondary_background_fill_hover": "button-hover",
    "button_secondary_border_color": "field-line",
    "button_cancel_background_fill": "button",
    "button_cancel_background_fill_hover": "cancel-hover",
    "button_cancel_border_color": "cancel-line",
    "button_cancel_text_color": "bad",
}
"""Gradio's variables, each with its colour's name in the palette."""

# Those that Gradio has twice, and that are the same by day and by night.
_BY_DAY_AND_NIGHT = {
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_label_background_fill": "transparent",
    "block_label_text_color": "*body_text_color_subdued",
    "block_title_text_color": "*body_text_color",
    "input_border_width": "1px",
    "button_border_width": "1px",
    "button_secondary_text_color": "*body_text_color",
}


def theme() -> Base:
    """Gradio's variables, light and dark."""
    base = Base(
        primary_hue="slate",
        secondary_hue="slate",
        neutral_hue="slate",
        text_size=_SIZE,
        radius_size=sizes.radius_sm,
        # The semi-bold that Gradio 6.31 ships lacks most letters.
        font=(LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
    )
    day = _BY_DAY_AND_NIGHT | {variable: palette.DAY[name] for variable, name in COLOURS.items()}
    night = _BY_DAY_AND_NIGHT | {variable: palette.NIGHT[name] for variable, name in COLOURS.items()}
    return base.set(
        **day,
        **{f"{variable}_dark": value for variable, value in night.items()},
        color_accent=palette.DAY["focus"],
        block_padding="0px",
        block_title_text_size="13px",
        block_title_text_weight="600",
        block_info_text_size="11px",
        layout_gap="14px",
        form_gap_width="0px",
        input_shadow="none",
        input_shadow_focus="none",
        input_padding="7px 9px",
        button_large_radius="4px",
        button_large_text_size="15px",
        button_large_padding="10px 16px",
        button_small_radius="4px",
        button_small_padding="5px 11px",
        button_small_text_size="13px",
        button_small_text_weight="500",
    )
