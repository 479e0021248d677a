"Numbers of a preset that no model has are refused before anything else is looked at."
import pytest
from mmllm.core import PresetError, get_preset
from mmllm.training import train_recipe

@pytest.mark.parametrize("sizes", [
    {"max_tiles": 9}, {"max_tiles": 0}, {"image_tokens": 5}, {"image_tokens": -4},
    {"concept_tokens": -1}, {"projector": "none"}, {"pad_to_square": "yes"},
])
def test_bad_sizes_are_named_before_a_missing_stage(sizes, tmp_path):
    preset = get_preset("tiny", **sizes)
    with pytest.raises(PresetError, match=next(iter(sizes))):
        train_recipe("tune", preset, tmp_path/"run")
    assert not (tmp_path/"run").exists()
