"A run of several processes is the run of one: the same weights, one writer, and a way on when one of them is killed."
import json, os, shutil, signal, socket, sys, time, traceback
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import pytest
import safetensors.torch
from safetensors.torch import load_file
import samples
from mmllm.data.conversations import image_messages, make_record
from mmllm.model import MMModel
from mmllm.training import TuneStage, get_stage, train
from mmllm.training.processes import ProcessLost, is_main_process, join_processes

NEEDS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
pytestmark = NEEDS_FORK

def noise(seed, side=32):
    "A picture that is like no other."
    return samples.as_file(samples.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)), "PNG")

def tone(seed):
    "Half a second of sound."
    return (np.sin(np.arange(8000) / (5 + seed)) * .3).astype(np.float32)

def conversation(i, parts):
    "A record: some media, a question, an answer."
    content = [*parts, {"type": "text", "text": "What is it?"}]
    return make_record([{"role": "user", "content": content}, {"role": "assistant", "content": f"It is number {i}, " + "very " * (i % 4) + "good."}], id=str(i))

def pictures(n=14): return [make_record(image_messages(noise(i), "What is it?", f"It is number {i}, " + "very " * (i % 4) + "good."), id=str(i)) for i in range(n)]

def mixed(n=14):
    "Pictures, sounds and words alone in turn: of two processes, one gets no picture in some batches, and no sound in others."
    media = [lambda i: [{"type": "image", "image": noise(i)}], lambda i: [{"type": "audio", "audio": tone(i)}], lambda i: []]
    return [conversation(i, media[i % 3](i)) for i in range(n)]

TUNE = dict(epochs=2, text=0, batch_size=3)

@dataclass(kw_only=True)
class WholeStage(TuneStage):
    "`tune` as if its batches could not be divided."
    name = "whole"
    mean_over = None

@dataclass(kw_only=True)
class HearingStage(TuneStage):
    "`tune` with the projector of sound."
    name = "hearing"
    trainable = r"projectors\.|language\..*lora_"

def run_stage(out, stage="tune", records=None, settings=TUNE, **changes):
    "Train a fresh tiny model on ten records; four say when to stop."
    import mmllm.model.model
    mmllm.model.model.has_native_bfloat16 = lambda device: False # rounding of bfloat16 would hide a wrong gradient
    model = MMModel.from_preset("tiny", device="cpu")
    model.processor.audio_mode = "tokens"
    records = records or pictures()
    return train(model, get_stage(stage, **{**settings, **changes}), records[:10], out, records[10:], progress=False)

def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]

def start(count, action, log):
    "`count` forks that do it as one run; -> their process ids. An exit code of 3 is `ProcessLost`."
    port, pids = free_port(), []
    for rank in range(count):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        code = 4
        try:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            signal.alarm(240)
            with open(f"{log}-{rank}.txt", "w") as out:
                for number in (1, 2): os.dup2(out.fileno(), number)
                sys.stdout = sys.stderr = out
                try:
                    action()
                    code = 0
                except ProcessLost: code = 3
                except BaseException: traceback.print_exc(file=out)
        finally: os._exit(code)
    return pids

def codes(pids): return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]

def run_together(count, action, log):
    "Do it in forks to the end."
    found = codes(start(count, action, log))
    assert found == [0] * count, "\n".join(Path(f"{log}-{rank}.txt").read_text()[-3000:] for rank in range(count))

def weights(bundle):
    "All that a bundle has learned."
    return {f"{file.name}/{key}": value for file in sorted(bundle.rglob("*.safetensors")) for key, value in load_file(file).items()}

def check_same(bundle, other, tolerance=2e-6):
    one, two = weights(bundle), weights(other)
    assert one.keys() == two.keys()
    worst = max((one[key].float() - two[key].float()).abs().max().item() for key in one)
    assert worst <= tolerance, f"weights differ by {worst}"

def losses(bundle): return [row.get("loss", row.get("eval_loss")) for row in json.loads((bundle/"training.json").read_text())["history"]]

@pytest.fixture(scope="module", autouse=True)
def prepared(learner):
    "The weights of `tiny` are there before anybody forks."

def taught_by(n, out):
    "What `n` processes make of the pictures."
    run_together(n, lambda: run_stage(out), out/"log")
    return out/"tune"

@pytest.fixture(scope="module")
def alone(cache, tmp_path_factory): return taught_by(1, tmp_path_factory.mktemp("alone"))

@pytest.fixture(scope="module")
def together(cache, tmp_path_factory): return taught_by(2, tmp_path_factory.mktemp("together"))

def test_two_end_with_the_weights_of_one(alone, together):
    check_same(alone, together)
    assert np.allclose(losses(alone), losses(together), atol=1e-5)

def test_a_model_that_was_trained_by_two_is_a_bundle(together):
    assert MMModel.from_pretrained(together, device="cpu").merged
    assert sorted(path.name for path in together.parent.iterdir()) == ["log-0.txt", "log-1.txt", "tune"]

def test_only_the_main_process_writes(cache, tmp_path):
    def act():
        join_processes()
        if not is_main_process(): # what it opens to write below the run's folder would be a fault
            def look(event, args):
                if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree") and str(tmp_path/"run") in str(args[0]): raise AssertionError(f"{event}: {args[0]}")
                if event == "open" and str(tmp_path/"run") in str(args[0]) and isinstance(args[1], str) and set(args[1]) & set("wax+"): raise AssertionError(f"written: {args[0]}")
            sys.addaudithook(look)
        run_stage(tmp_path/"run", epochs=1)
    run_together(2, act, tmp_path/"log")
    assert (tmp_path/"log-1.txt").read_text() == ""

def test_a_batch_without_pictures_or_sound_on_one_side(cache, tmp_path):
    for count in (1, 2): run_together(count, lambda count=count: run_stage(tmp_path/str(count), HearingStage, mixed(), epochs=1), tmp_path/f"log{count}")
    check_same(tmp_path/"1"/"hearing", tmp_path/"2"/"hearing")

def test_a_batch_smaller_than_the_number_of_processes(cache, tmp_path):
    for count in (1, 3): run_together(count, lambda count=count: run_stage(tmp_path/str(count), batch_size=2, epochs=1), tmp_path/f"log{count}")
    check_same(tmp_path/"1"/"tune", tmp_path/"3"/"tune")

def test_a_loss_without_parts_is_that_of_one_process(alone, tmp_path):
    run_together(2, lambda: run_stage(tmp_path, WholeStage), tmp_path/"log")
    check_same(alone, tmp_path/"whole", tolerance=0)

def kill_when_saved(out, count, log):
    "Kill the last process as soon as there is a checkpoint; -> exit codes, seconds that the others took to end."
    pids = start(count, lambda: run_stage(out), log)
    while not list((out/"checkpoints"/"tune").glob("checkpoint-*")): time.sleep(.01)
    os.kill(pids[-1], signal.SIGKILL)
    began = time.monotonic()
    return codes(pids), time.monotonic() - began

def test_one_is_killed_and_the_run_goes_on(together, tmp_path):
    found, seconds = kill_when_saved(tmp_path/"run", 2, tmp_path/"killed")
    assert found == [3, -signal.SIGKILL], (tmp_path/"killed-0.txt").read_text()[-3000:]
    assert seconds < 20
    run_together(2, lambda: run_stage(tmp_path/"run"), tmp_path/"resumed")
    check_same(together, tmp_path/"run"/"tune", tolerance=0)
    assert losses(tmp_path/"run"/"tune") == losses(together)

def test_a_checkpoint_of_two_is_one_of_one(together, tmp_path):
    kill_when_saved(tmp_path/"run", 2, tmp_path/"killed")
    run_together(1, lambda: run_stage(tmp_path/"run"), tmp_path/"resumed")
    check_same(together, tmp_path/"run"/"tune")

# --- killed while something is removed

def half_removed(nth):
    "From now on, the nth removal of a checkpoint is cut off by SIGKILL after its first file."
    whole, seen = shutil.rmtree, []
    def remove(folder, *args, **options):
        if Path(folder).name.startswith("checkpoint-"):
            seen.append(folder)
            if len(seen) == nth:
                next(path for path in Path(folder).rglob("*") if path.is_file()).unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return whole(folder, *args, **options)
    shutil.rmtree = remove

@pytest.mark.parametrize("nth", [1, 2])
def test_half_a_checkpoint_has_no_name_to_be_resumed_from(nth, alone, tmp_path):
    def act():
        half_removed(nth)
        run_stage(tmp_path/"run")
    assert codes(start(1, act, tmp_path/"killed")) == [-signal.SIGKILL], (tmp_path/"killed-0.txt").read_text()[-3000:]
    folder = tmp_path/"run"/"checkpoints"/"tune"
    assert any(path.is_file() for path in (folder/".partial").rglob("*")), "nothing was half removed"
    for checkpoint in folder.glob("checkpoint-*"): assert (checkpoint/"optimizer.pt").is_file() and (checkpoint/"projectors.safetensors").is_file()
    run_together(1, lambda: run_stage(tmp_path/"run"), tmp_path/"again")
    check_same(alone, tmp_path/"run"/"tune", tolerance=0)
    assert sorted(path.name for path in (tmp_path/"run").iterdir()) == ["checkpoints", "tune"] and not list((tmp_path/"run"/"checkpoints").iterdir())

def half_saved():
    "From now on, the second file of safetensors is cut off by SIGKILL: it is written beside its name first."
    whole, seen = safetensors.torch.save_file, []
    def save(tensors, path, *args, **options):
        seen.append(path)
        if len(seen) == 2:
            Path(path).with_name(".tmpaB3xYz").write_bytes(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(tensors, path, *args, **options)
    for module in [each for each in sys.modules.values() if getattr(each, "save_file", None) is whole]: module.save_file = save

def test_half_a_file_of_safetensors_is_ours(alone, tmp_path):
    def act():
        half_saved()
        run_stage(tmp_path/"run")
    assert codes(start(1, act, tmp_path/"killed")) == [-signal.SIGKILL], (tmp_path/"killed-0.txt").read_text()[-3000:]
    assert list((tmp_path/"run").rglob(".tmp*")), "nothing was half saved"
    run_together(1, lambda: run_stage(tmp_path/"run"), tmp_path/"again")
    check_same(alone, tmp_path/"run"/"tune", tolerance=0)
    assert not list((tmp_path/"run").rglob(".*"))
