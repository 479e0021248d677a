"How Sphinx renders the pages that tools/docs.py prepares."
project = "mmllm"
author = "the mmllm team"
copyright = "2026 onwards, the mmllm team"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_mime_priority_overrides = [
    ("html", "application/vnd.jupyter.widget-view+json", None),
]
myst_enable_extensions = ["dollarmath", "attrs_inline", "html_image"]
myst_heading_anchors = 6
html_theme = "furo"
html_title = "mmllm"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_show_sourcelink = False
templates_path = []
exclude_patterns = ["doctrees"]
