"What a kill leaves of a training run's checkpoints is whole, or in nobody's way."
import hashlib, os
import numpy as np
import pytest
from mmllm.data import load_scenes, scene_record
from mmllm.model import MMModel
from mmllm.training import get_stage, train
import mmllm.model.bundle as bundle
import samples

NEEDS_FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not copied here")

class Killed(BaseException): "What a `kill -9` is in the process that is killed."

@pytest.fixture(scope="module")
def records():
    "Pictures of noise, and sentences about them."
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    files = [samples.as_file(samples.Image.fromarray(pixels), "PNG") for pixels in noise]
    return [scene_record(scene, file) | {"id": f"{i}.png"} for i, (scene, file) in enumerate(zip(load_scenes(), files))]

def teach(folder, records):
    "One stage of training, of three epochs; -> {name: SHA-256} of what it leaves."
    model = MMModel.from_preset("tiny", device="cpu")
    train(model, get_stage("align", epochs=3), records[:6], folder, records[6:], progress=False)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

@pytest.fixture(scope="module")
def undisturbed(records, cache, tmp_path_factory): return teach(tmp_path_factory.mktemp("undisturbed"), records)

@pytest.mark.parametrize("when", [1, 3])
def test_a_kill_while_a_checkpoint_is_removed_is_in_nobodys_way(when, records, undisturbed, tmp_path, monkeypatch):
    unlink, seen = os.unlink, []
    def kill(path, *args, **options):
        if os.path.basename(os.fspath(path)) == "optimizer.pt":
            seen.append(path)
            if len(seen) == when: raise Killed
        return unlink(path, *args, **options)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", kill)
        try: teach(tmp_path, records)
        except Killed: pass
    assert seen, "no checkpoint was removed"
    assert teach(tmp_path, records) == undisturbed

def end_at(name, module, call):
    "From its so manieth call on there is no process any more."
    function, seen = getattr(module, name), []
    def last(*args, **options):
        seen.append(args)
        if len(seen) == call: os._exit(9)
        return function(*args, **options)
    setattr(module, name, last)

@NEEDS_FORKS
@pytest.mark.parametrize("name, module, call", [
    ("save_file", bundle, 2), ("rename", os, 2), ("rename", os, 3),
    ("rename", os, 4), ("rename", os, 5),
], ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_kill_while_a_checkpoint_is_saved_is_in_nobodys_way(name, module, call, records, undisturbed, tmp_path):
    pid = os.fork()
    if not pid:
        end_at(name, module, call)
        try: teach(tmp_path, records)
        finally: os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9, "it was not killed"
    assert teach(tmp_path, records) == undisturbed
