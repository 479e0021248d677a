"""Puts the figures of data/lite/figures.json into the model card beside it, data/lite/README.md.

    python tools/card.py
"""
from pathlib import Path
from mmllm.evaluation import update_card

CARD = Path(__file__).resolve().parent.parent/"data"/"lite"/"README.md"

if __name__ == "__main__": CARD.write_text(update_card(CARD.read_text(encoding="utf-8")), encoding="utf-8")
