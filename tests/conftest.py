"What every test gets: a cache of its own, no network, an end to what hangs, and a small model."
import os, runpy, signal
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OFFLINE = ROOT/"tools"/"offline"
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
os.environ["PYTHONPATH"] = os.pathsep.join([str(OFFLINE), str(ROOT)]) # of the programs that tests start
os.environ.pop("MMLLM_DATA", None) # tests bring their own
runpy.run_path(str(OFFLINE/"sitecustomize.py"))

import mmllm.core # before torch # noqa: F401
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "mmllm", max_examples=60, derandomize=True, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("mmllm")
SECONDS = 900 # before a test counts as hung; a busy machine is slow

@pytest.fixture(autouse=True)
def end_of_patience():
    "A test that hangs fails."
    def give_up(number, frame): raise TimeoutError(f"nothing came of it for {SECONDS} s")
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)

@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    "The cache of this session, with the weights of the preset tiny once somebody needs them."
    folder = tmp_path_factory.mktemp("cache")
    os.environ["MMLLM_CACHE"] = str(folder)
    from transformers.utils import logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return folder

@pytest.fixture(scope="session")
def learner(cache):
    "An untrained tiny model that can learn, and be saved."
    from mmllm.model import MMModel
    return MMModel.from_preset("tiny", device="cpu")

@pytest.fixture(scope="session")
def saved(learner, tmp_path_factory):
    "Its bundle; nobody writes to it."
    folder = tmp_path_factory.mktemp("bundles")/"tiny"
    learner.save_pretrained(folder)
    return folder

@pytest.fixture(scope="session")
def talker(saved):
    "The model of that bundle, loaded to talk."
    from mmllm.model import MMModel
    return MMModel.from_pretrained(saved, device="cpu")

@pytest.fixture
def bundle(saved, tmp_path):
    "A bundle to damage."
    import shutil
    return Path(shutil.copytree(saved, tmp_path/"bundle"))

@pytest.fixture
def thesis():
    "A function that leaves somebody's thesis in a folder, and one that asks whether it is still there."
    return Thesis()

class Thesis:
    "Three years of work."
    text = "Three years of work.\n" * 100

    def lay(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder/"thesis.txt"
        self.path.write_text(self.text)
        return folder

    def is_there(self): return self.path.is_file() and self.path.read_text() == self.text

@pytest.fixture(scope="session")
def picture():
    "A small picture, as an array."
    import samples
    return np.array(samples.landscape())

def pytest_configure():
    "A shell has Ctrl-C ignored by what it starts in the background, and programs started there inherit that: not those of the tests."
    signal.signal(signal.SIGINT, signal.default_int_handler)
