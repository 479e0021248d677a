"""Builds the wheel, installs it into a fresh environment that borrows only the dependencies of this one, and opens the chat from there.

    python tools/wheel.py
"""
import os, subprocess, sys, tempfile, venv, zipfile
from pathlib import Path
import sysconfig
from notebooks import NBS, ROOT, tracked

WANTED = ["mmllm/chat/static/chat.js", "mmllm/chat/static/chat.css", "mmllm/evaluation/static/report.html",
          "mmllm/serve/static/index.html", "mmllm/serve/static/page.js", "mmllm/serve/static/page.css",
          "mmllm/files/lite/config.json", "mmllm/files/lite/adapter/adapter_model.safetensors", "mmllm/files/coco128_annotations.jsonl"]
OPEN = """
import sys
from pathlib import Path
import mmllm
home = Path(mmllm.__file__).parent
assert str(home).startswith(sys.prefix), home
from mmllm import ChatView, MMModel
from mmllm.model import read_config
view = ChatView("tiny")
front = next(child for child in view.children if hasattr(child, "_esm"))
assert "export default" in str(front._esm) and ".mm-chat" in str(front._css), "the front end is empty"
print(read_config("lite").language, "and the chat open from the wheel")
"""

def build(folder):
    "The wheel of this checkout, made from a copy, so that nothing is left in it."
    copy = folder/"source"
    for path in tracked():
        if path.is_relative_to(NBS): continue
        target = copy/path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, copy]
    subprocess.run([str(o) for o in command], check=True)
    return next(folder.glob("mmllm-*.whl"))

def borrow(environment):
    "Let a fresh environment see the packages of this one, but not this checkout."
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(environment), "platbase": str(environment)}))
    (site/"borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

def main():
    "Build, look into the wheel, install, open."
    with tempfile.TemporaryDirectory(prefix="mmllm-wheel-") as place:
        folder = Path(place)
        wheel = build(folder)
        names = zipfile.ZipFile(wheel).namelist()
        missing = [name for name in WANTED if name not in names]
        if missing: sys.exit(f"the wheel lacks {', '.join(missing)}: see package_data in setup.py")
        environment = folder/"env"
        venv.create(environment, with_pip=False)
        python = environment/("Scripts" if os.name == "nt" else "bin")/"python"
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
        subprocess.run(install, check=True)
        borrow(environment)
        env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([str(python), "-c", OPEN], cwd=place, env=env, check=True)

if __name__ == "__main__": main()
