"""Puts the figures of data/lite/figures.json into the model card beside it, data/lite/README.md, between two marks.

    python tools/card.py
"""
from mmllm.evaluation import shipped_figures, shipped_tables
from notebooks import ROOT

CARD = ROOT/"data"/"lite"/"README.md"
START, END = "<!-- figures: python tools/card.py -->", "<!-- end of figures -->"

def figures_in_words():
    "The figures that a reader of the card should know, as sentences."
    report = shipped_figures("captions_val2017")
    value = {(score.metric, score.condition): score.value for score in report.scores}
    invented = value["CHAIR-i", "full"]
    random, popular = (value[f"POPE {how}, accuracy", "full"] for how in ("random", "popular"))
    own, nearest = value["CIDEr", "full"], value["CIDEr", "nearest photo"]
    return (
        f"On 76 photos of COCO val2017, {invented:.0%} of the objects that its captions name are "
        "neither in the boxes nor in what people wrote (CHAIR-i). Asked whether an object is there "
        f"it is right in {random:.0%} (random absent objects) or {popular:.0%} (popular ones) of "
        "the cases, where half would be luck. The caption of the nearest training photo scores "
        f"CIDEr {nearest:.1f}, its own {own:.1f}.")

def card_figures():
    "The part of the card that is made from `figures.json`, in Markdown, with its marks."
    tables = [f"### {title}\n\n{report._repr_markdown_()}" for title, report in shipped_tables().items()]
    return "\n\n".join([START, figures_in_words(), *tables, END])

def update_card(text):
    "The card with the figures of today; raises `ValueError` if it has no place for them."
    if START not in text or END not in text:
        raise ValueError(f"the model card lacks {START!r} or {END!r}: put both back")
    before, rest = text.split(START, 1)
    return before + card_figures() + rest.split(END, 1)[1]

if __name__ == "__main__": CARD.write_text(update_card(CARD.read_text(encoding="utf-8")), encoding="utf-8")
