"""Our `tune` beside a plain loop of transformers' `Trainer`, on the same photos and captions, in turns.

    python tools/plain_trainer.py flickr8k_2k --photos 200 --rounds 10

The plain side has what the usual fine-tuning script has: one example a caption, padded, and pixels that the encoder sees anew in every
batch. Ours has the captions of a photo in one prefix tree, features that are computed once, and rows that are cut. Both learn from the
same captions in each step, so the loss has to be the same. Nothing is saved.
"""
import argparse, tempfile, time
import numpy as np
from torch.optim import AdamW
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging
from mmllm.data import image_messages, load_records, make_record, CAPTION_PROMPT
from mmllm.model import MMModel
from mmllm.training import ConversationDataset, DatasetRecipe, Meter, StageTrainer, get_stage, set_trainable
from mmllm.vision import FeatureCache

class SamePrompt(ConversationDataset):
    "All captions of a photo, asked for with the one prompt that the plain side has."
    def draw(self, record, rng): return as_examples(record)

def as_examples(record):
    "A conversation for each caption."
    image = record["images"][0]
    return [make_record(image_messages(image, CAPTION_PROMPT, one)) for one in record["captions"]]

def load(stage):
    "The model that comes with mmllm, ready to learn, as `mmllm train tune` loads it."
    model = MMModel.from_pretrained("lite", trainable=True, **DatasetRecipe("").loading("lite"))
    set_trainable(model, stage)
    return model

def settings(batch_size):
    "What both sides have in common; nothing is written."
    return TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch_size, num_train_epochs=1,
        lr_scheduler_type="constant", max_grad_norm=1., logging_steps=1, save_strategy="no", use_cpu=True,
        remove_unused_columns=False, train_sampling_strategy="sequential", report_to=[], disable_tqdm=True)

class Clock(TrainerCallback):
    "Seconds between the first step and the last: of the processor, and by the clock."
    def on_train_begin(self, args, state, control, **kwargs): self.began = np.array([time.process_time(), time.time()])
    def on_train_end(self, args, state, control, **kwargs): self.spent = np.array([time.process_time(), time.time()]) - self.began

def learn(make, model, stage, examples, batch_size, collate):
    "Losses of one pass over some examples, and its seconds: of the processor, and by the clock."
    optimizer = AdamW(stage.param_groups(model), lr=stage.learning_rate, weight_decay=0.)
    trainer = make(model=model, args=settings(batch_size), data_collator=collate, train_dataset=examples,
                   optimizers=(optimizer, None))
    trainer.stage, trainer.meter, trainer.model_accepts_loss_kwargs = stage, Meter(), False
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(clock := Clock())
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], clock.spent

def counted(collate, positions):
    "A collator that notes how many positions its batches have."
    def count(examples):
        batch = collate(examples)
        whole = batch["groups"][None] if "groups" in batch else batch
        positions.append(whole["input_ids"].numel())
        return batch
    return count

def seen(model):
    "Seconds of the processor that the encoder of pictures takes from now on, as a list that grows."
    spent, inner = [], model.vision.features
    def features(pixels):
        began = time.process_time()
        made = inner(pixels)
        spent.append(time.process_time() - began)
        return made
    model.vision.features = features
    return spent

def main(data, photos, rounds):
    "Both sides in turns; prints examples a second, the ratio, the losses, and where the time goes."
    stage = get_stage("tune", text=0)
    ours, plain = load(stage), load(stage)
    ours.processor.features = FeatureCache(ours.vision)
    ours.language.get_base_model().set_attn_implementation("eager") # as `DatasetRecipe.records` does
    eyes = {"ours": seen(ours), "plain": seen(plain)}
    positions, totals, losses = {"ours": [], "plain": []}, {"ours": [], "plain": []}, {"ours": [], "plain": []}
    records = load_records(data, max_rows=photos)
    for some in np.array_split(np.arange(len(records)), rounds):
        chosen = [records[int(i)] for i in some]
        n = sum(len(record["captions"]) for record in chosen)
        trees = SamePrompt(chosen, stage)
        flat = [one for i in range(len(trees)) for one in trees[i]] # the same order
        sides = {
            "ours": (StageTrainer, ours, trees, stage.batch_size,
                     lambda examples: {"groups": {None: stage.collate(ours, examples)}}),
            "plain": (Trainer, plain, flat, stage.batch_size * n // len(chosen),
                      lambda examples: dict(plain.processor(examples, add_generation_prompt=False))),
        }
        for name, (make, model, examples, size, collate) in sides.items():
            loss, spent = learn(make, model, stage, examples, size, counted(collate, positions[name]))
            losses[name] += loss
            totals[name].append(spent)
            print(f"{name:6} {n / spent[0]:6.2f} examples a second of the processor, {n / spent[1]:6.2f} by the clock, "
                  f"loss {np.mean(loss):.4f}", flush=True)
    for name, spent in totals.items():
        cpu = sum(one for one, _ in spent)
        print(f"{name:6} {cpu:7.1f} s of the processor, {sum(eyes[name]):6.1f} of them in the encoder of pictures; "
              f"{sum(positions[name])} positions; mean loss {np.mean(losses[name]):.4f}")
    cpu, clock = (np.sum(totals["plain"], 0) / np.sum(totals["ours"], 0)).tolist()
    print(f"ours is {cpu:.2f} times as fast by the processor, {clock:.2f} by the clock")

if __name__ == "__main__":
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    main(**vars(parser.parse_args()))
