"""Puts a trained bundle into data/lite, the one that comes with the project: half precision, no tokenizer (the base has it).

    python tools/ship.py runs/ship/listen                     the bundle
    python tools/ship.py runs/ship/listen runs/evaluation     and its figures, from the reports in that folder
"""
import json, shutil, sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from notebooks import ROOT

LIMIT = 24 * 2**20 # bytes of safetensors in all

def ship(bundle, target):
    "Copy what is ours; the model card that stands in `target` stays."
    bundle, target = Path(bundle), Path(target)
    if json.loads((bundle/"training.json").read_text())["stage"]["name"] != "listen": sys.exit(f"{bundle} has not learned to listen: ship what mmllm train listen made")
    (target/"adapter").mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "training.json", "adapter/adapter_config.json"): shutil.copy(bundle/name, target/name)
    for name in ("adapter/adapter_model", "projectors", "clip", "audio"):
        state = load_file(bundle/f"{name}.safetensors")
        if not all(tensor.abs().max() < 6e4 for tensor in state.values()): sys.exit(f"{name} has numbers that float16 does not hold")
        save_file({key: tensor.half() for key, tensor in state.items()}, target/f"{name}.safetensors", metadata={"format": "pt"})
        (target/f"{name}.safetensors").chmod(0o644)
    size = sum(file.stat().st_size for file in target.rglob("*.safetensors"))
    print(f"{size / 2**20:.1f} MiB of safetensors in {target}")
    if size > LIMIT: sys.exit(f"that is more than {LIMIT / 2**20:.0f} MiB")

def figures(evaluation, target):
    "The figures of all reports in a folder, without the replies."
    reports = {file.name.removesuffix("-report.json"): json.loads(file.read_text())["scores"] for file in sorted(Path(evaluation).glob("*-report.json"))}
    if not reports: sys.exit(f"there is no report in {evaluation}: run mmllm evaluate first")
    (Path(target)/"figures.json").write_text(json.dumps(reports) + "\n")

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3): sys.exit(__doc__)
    target = ROOT/"data"/"lite"
    ship(sys.argv[1], target)
    if len(sys.argv) == 3: figures(sys.argv[2], target)
