"""How the page looks: a neutral desk on which only the measurements have colour.

Figures and what can be pressed are ink; the hues belong to the step timeline, where daylight blue is computed and
tungsten amber is reused (the two white balances of a film set), each with a hatch of its own. Knows Gradio's theme
variables and the style sheet beside it. Refuses to fetch a font: IBM Plex comes with Gradio.
"""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base, sizes
from gradio.themes.utils.fonts import LocalFont

STYLE_SHEET = Path(__file__).parent / "style.css"

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


def theme() -> Base:
    """Gradio's variables, light and dark."""
    return Base(
        primary_hue="slate",
        secondary_hue="slate",
        neutral_hue="slate",
        text_size=_SIZE,
        radius_size=sizes.radius_sm,
        # The semi-bold that Gradio 6.31 ships lacks most letters.
        font=(LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"),
    ).set(
        body_background_fill="#f3f4f5",
        body_background_fill_dark="#111315",
        body_text_color="#16191d",
        body_text_color_dark="#e6e8ea",
        body_text_color_subdued="#59626c",
        body_text_color_subdued_dark="#98a1aa",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#181b1e",
        background_fill_secondary="#eceef0",
        background_fill_secondary_dark="#1f2327",
        border_color_primary="#d5d9dd",
        border_color_primary_dark="#30363c",
        border_color_accent="#2b67a8",
        border_color_accent_dark="#74aee6",
        color_accent="#2b67a8",
        color_accent_soft="#e3ecf5",
        color_accent_soft_dark="#1d2a37",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_padding="0px",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_text_color="*body_text_color_subdued",
        block_label_text_color_dark="*body_text_color_subdued",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_text_size="13px",
        block_title_text_weight="600",
        block_info_text_size="11px",
        layout_gap="14px",
        form_gap_width="0px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#1b1f23",
        input_border_color="#c4cad0",
        input_border_color_dark="#3a4249",
        input_border_color_focus="#2b67a8",
        input_border_color_focus_dark="#74aee6",
        input_border_width="1px",
        input_border_width_dark="1px",
        input_shadow="none",
        input_shadow_focus="none",
        input_padding="7px 9px",
        input_placeholder_color="#7d8791",
        input_placeholder_color_dark="#7d8791",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_large_radius="4px",
        button_large_text_size="15px",
        button_large_padding="10px 16px",
        button_small_radius="4px",
        button_small_padding="5px 11px",
        button_small_text_size="13px",
        button_small_text_weight="500",
        button_primary_background_fill="#16191d",
        button_primary_background_fill_dark="#e6e8ea",
        button_primary_background_fill_hover="#31373e",
        button_primary_background_fill_hover_dark="#ffffff",
        button_primary_border_color="#16191d",
        button_primary_border_color_dark="#e6e8ea",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#111315",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1f2327",
        button_secondary_background_fill_hover="#eceef0",
        button_secondary_background_fill_hover_dark="#2a2f34",
        button_secondary_border_color="#c4cad0",
        button_secondary_border_color_dark="#3a4249",
        button_secondary_text_color="*body_text_color",
        button_secondary_text_color_dark="*body_text_color",
        button_cancel_background_fill="#ffffff",
        button_cancel_background_fill_dark="#1f2327",
        button_cancel_background_fill_hover="#fbe9e7",
        button_cancel_background_fill_hover_dark="#3a2220",
        button_cancel_border_color="#b3382c",
        button_cancel_border_color_dark="#ea8a7f",
        button_cancel_text_color="#a52f24",
        button_cancel_text_color_dark="#f0a198",
    )
