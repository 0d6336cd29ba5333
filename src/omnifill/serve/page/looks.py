"""Colours, letters and sizes. Only letters that the visitor's system has: none are fetched."""

from __future__ import annotations

from typing import Any

import gradio as gr

LETTERS = ["system-ui", "-apple-system", "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
HEAD = """<meta name="color-scheme" content="light dark">
<script>
new MutationObserver(() => {
  for (const button of document.querySelectorAll('button.calendar:not([aria-label])')) {
    const name = button.closest('.block').querySelector('[data-testid=block-info]').textContent
    button.setAttribute('aria-label', '%s: ' + name.trim())
    for (const input of button.closest('.block').querySelectorAll('input'))
      input.setAttribute('aria-label', name.trim())
  }
}).observe(document, {subtree: true, childList: true})
</script>"""
"""Gradio gives a date and the button of its calendar no name that is read aloud."""
COLOURS = {"sure": "#1b7f4b", "rather": "#2563a8", "hardly": "#a15c00", "rare": "#b3261e"}
"""Of how likely a token was."""
CSS = """
.gradio-container { width: 100% !important; max-width: 76rem !important;
  margin: 0 auto !important }
.head header { display: flex; flex-wrap: wrap; gap: .25rem 2rem; align-items: baseline;
  justify-content: space-between }
.head h1 { font-size: 1.5rem; font-weight: 650; margin: 0 }
.head p { margin: 0 !important; color: var(--body-text-color) }
.head nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem }
.head a { color: var(--link-text-color); text-decoration: underline }
.mode .wrap { flex-wrap: wrap }
label:has(> .icon-button-wrapper) > [data-testid=block-info] { padding-right: 2rem }
#past input { padding-right: 1.75rem; text-overflow: ellipsis }
.header-cell .header { overflow-wrap: normal !important; word-break: normal !important }
.virtual-table-viewport { scrollbar-width: auto !important; scrollbar-color: auto !important }
.virtual-table-viewport::-webkit-scrollbar { height: .6rem !important; width: .6rem !important }
.virtual-table-viewport::-webkit-scrollbar-thumb {
  background-color: var(--body-text-color-subdued) !important }
:focus-visible { outline: 3px solid var(--link-text-color) !important; outline-offset: 2px }
#time, #duration, button.playback { color: var(--body-text-color) !important }
.legend-item, #likely .textspan, #likely .text { color: var(--body-text-color) !important }
#pictures img { image-rendering: pixelated }
#pictures .grid-wrap { height: auto; max-height: 32rem }
.dark button[role=tab].selected { color: var(--link-text-color) !important }
@media (max-width: 640px) {
  .gradio-container .fillable { padding: .75rem !important }
  .gradio-container, .gradio-container .block {
    min-width: 0 !important; max-width: 100vw !important }
  .gradio-container .numbers .block { min-width: 40% !important }
  .sizing-body td, .header-cell { max-width: 14rem !important }
  .gradio-container .row > .column { min-width: 100% !important; max-width: 100% !important }
}
"""
"""For the head of the document: what Gradio is given as CSS reaches only within its parts."""


def theme() -> Any:
    """Plain, with contrast enough to read in light and in dark."""
    return gr.themes.Base(
        primary_hue="emerald", secondary_hue="emerald", neutral_hue="slate", font=LETTERS,
        font_mono=MONO,
    ).set(
        color_accent="#0b6b45",
        button_primary_background_fill="#0b6b45", button_primary_background_fill_hover="#095a3a",
        button_primary_background_fill_dark="#0b6b45", button_primary_text_color="white",
        button_primary_background_fill_hover_dark="#0d7d51",
        checkbox_background_color_selected="#0b6b45", checkbox_border_color_selected="#0b6b45",
        block_info_text_color="#475569", block_info_text_color_dark="#cbd5e1",
        block_title_text_color="#1e293b", block_title_text_color_dark="#f1f5f9",
        block_label_text_color="#1e293b", block_label_text_color_dark="#f1f5f9",
        body_text_color_subdued="#475569", body_text_color_subdued_dark="#cbd5e1",
        link_text_color="#0b6b45", link_text_color_dark="#6ee7b7",
        input_placeholder_color="#64748b", input_placeholder_color_dark="#94a3b8",
    )  # fmt: skip
