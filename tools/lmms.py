"""Asks a model through lmms-eval itself, on two tasks of ten records that are drawn and spoken here: POPE's words, and transcription.

    python tools/lmms.py FOLDER [--model lite]

Needs an environment with lmms-eval and mmllm in it (`pip install lmms-eval`); FOLDER gets the tasks and lmms-eval's own report.
"""
import argparse, json, subprocess, sys
from pathlib import Path
import soundfile
from mmllm.data.coco128 import coco128, object_counts, validation_photos
from mmllm.data.examples import COLOURS, draw_shape
from mmllm.data.media import SAMPLE_RATE, load_audio
from mmllm.evaluation.items import POPE_SUFFIX
from mmllm.vision.features import photos_at_hand
from mmllm.weights import fetch

UTILS = '''import soundfile
from PIL import Image

def pope_messages(doc, lmms_eval_specific_kwargs=None):
    parts = [{"type": "image", "url": Image.open(doc["image"]).convert("RGB")}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": parts}]

def pope_results(doc, results):
    return {"accuracy": float(results[0].lower().strip().rstrip(".") == doc["answer"])}

def heard_messages(doc, lmms_eval_specific_kwargs=None):
    wave, rate = soundfile.read(doc["audio"])
    parts = [{"type": "audio", "url": {"array": wave, "sampling_rate": rate}}, {"type": "text", "text": "Repeat what was said."}]
    return [{"role": "user", "content": parts}]

def heard_results(doc, results):
    said, right = set(results[0].lower().split()), set(doc["text"].lower().split())
    return {"words": len(said & right) / len(right)}
'''
TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_messages: !function utils.{kind}_messages
doc_to_text: {text}
doc_to_target: {target}
process_results: !function utils.{kind}_results
generation_kwargs: {{max_new_tokens: {tokens}, temperature: 0, do_sample: false}}
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 0.0}}
"""

def drawn(folder):
    "Ten drawings; every second question is about another colour."
    rows = []
    for i in range(10):
        content, said = draw_shape(i)
        path = folder/f"{i}.png"
        path.write_bytes(content)
        colour = said.split()[0] if i % 2 else COLOURS[(i + 5) % len(COLOURS)]
        rows.append({"image": str(path), "question": f"Is there a {colour} shape in the image?" + POPE_SUFFIX, "answer": "yes" if i % 2 else "no"})
    return rows

def photos(folder):
    "Ten photos of COCO128, where they are at hand; every second question is about a boat or a giraffe, or a bear."
    records = [one for one in validation_photos(coco128()) if object_counts(one)]
    if not photos_at_hand(records): return []
    rows = []
    for i, record in enumerate(records[:10]):
        there = list(object_counts(record))
        name = there[0] if i % 2 else next(one for one in ("boat", "giraffe", "bear") if one not in there)
        article = "an" if name[0] in "aeiou" else "a"
        rows.append({"image": str(record.path), "question": f"Is there {article} {name} in the image?" + POPE_SUFFIX, "answer": "yes" if i % 2 else "no"})
    return rows

def spoken(folder):
    "Five LibriVox sentences, whole and their first four seconds."
    place, rows = fetch("librivox"), []
    with open(place/"transcription") as file: texts = [line.strip() for line in file if line.strip()]
    for i, file in enumerate(sorted(place.glob("*.wav"))):
        wave = load_audio(file)
        for name, part in (("whole", wave), ("begun", wave[:4 * SAMPLE_RATE])):
            path = folder/f"{i}-{name}.wav"
            soundfile.write(path, part, SAMPLE_RATE)
            rows.append({"audio": str(path), "text": texts[i].split("(")[0].replace("<s>", "").replace("</s>", "").strip()})
    return rows

def write_task(folder, name, rows, **about):
    data = folder/f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder/f"{name}.yaml").write_text(TASK.format(name=name, data=data, **about))

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="lite")
    args = parser.parse_args()
    folder = args.folder.resolve()
    (folder/"tasks").mkdir(parents=True, exist_ok=True)
    (folder/"tasks"/"utils.py").write_text(UTILS)
    write_task(folder/"tasks", "mmllm_seen", photos(folder) or drawn(folder), kind="pope", text="question", target="answer", tokens=8, metric="accuracy")
    write_task(folder/"tasks", "mmllm_heard", spoken(folder), kind="heard", text="text", target="text", tokens=60, metric="words")
    command = [sys.executable, "-m", "lmms_eval", "--model", "mmllm", "--model_args", f"pretrained={args.model}", "--include_path", folder/"tasks",
               "--tasks", "mmllm_seen,mmllm_heard", "--batch_size", "4", "--log_samples", "--output_path", folder/"out"]
    sys.exit(subprocess.run([str(word) for word in command]).returncode)
