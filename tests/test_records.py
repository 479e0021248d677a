"Tables, JSON lines, COCO files and records: a wrong line is named, and nothing is read around it."
import csv, json, os
import numpy as np
import pytest
from helpers import NEEDS_FIFOS, refused
import samples
from mmllm.data.coco128 import json_lines, load_annotations, load_labels
from mmllm.data.coco_photos import coco_records, find_coco_photos, load_coco_texts
from mmllm.data.conversations import inline_media, load_scenes, make_record
from mmllm.data.datasets import load_captioned_folder, split_validation
from mmllm.data.media import DataError, MediaError
from mmllm.evaluation.items import coco_items, read_captions, read_instances
from mmllm.evaluation.metrics import EvaluationError

# --- a folder and a CSV

@pytest.fixture
def folder(tmp_path):
    "Two pictures, `a.png` and `b.png`."
    (tmp_path/"photos").mkdir()
    for name in ("a.png", "b.png"): (tmp_path/"photos"/name).write_bytes(samples.pictures()["png RGB"])
    return tmp_path/"photos"

def table(folder, content):
    path = folder.parent/"captions.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path

GOOD_TABLES = {
    "plain": "image,caption\na.png,A cat.\nb.png,A dog.\n", "no last newline": "image,caption\na.png,A cat.\nb.png,A dog.",
    "Windows": "image,caption\r\na.png,A cat.\r\nb.png,A dog.\r\n", "byte-order mark": "\ufeffimage,caption\na.png,A cat.\nb.png,A dog.\n",
    "more columns": "image,caption,by\na.png,A cat.,me\nb.png,A dog.,you\n", "another order": "caption,image\nA cat.,a.png\nA dog.,b.png\n",
    "quoted": 'image,caption\na.png,"A cat."\n"b.png","A dog."\n', "spaces": "image,caption\n a.png , A cat. \nb.png,A dog.\n",
    "empty columns": "image,caption,\na.png,A cat.,\nb.png,A dog.,\n",
}

@pytest.mark.parametrize("name", GOOD_TABLES)
def test_tables_as_programs_write_them_are_read(name, folder):
    records = load_captioned_folder(folder, table(folder, GOOD_TABLES[name]))
    assert [(r["id"], r["captions"]) for r in records] == [("a.png", ["A cat."]), ("b.png", ["A dog."])]

def test_commas_quotes_and_newlines_in_quotes_are_kept(folder):
    said = 'A cat, black, says "no"\nand goes.'
    path = table(folder, "")
    with open(path, "w", newline="", encoding="utf-8") as file: csv.writer(file).writerows([["image", "caption"], ["a.png", said]])
    assert load_captioned_folder(folder, path)[0]["captions"] == [said]

BAD_TABLES = {
    "unquoted comma": ("image,caption\na.png,A cat, black.\n", "line 2"), "empty": ("", "first line"), "one word": ("hello", "first line"),
    "head only": ("image,caption\n", "a line for each"), "other columns": ("file,text\na.png,A cat.\n", "image,caption"),
    "semicolons": ("image;caption\na.png;A cat.\n", "image,caption"), "no caption": ("image,caption\na.png,\n", "line 2"),
    "no word": ("image,caption\na.png,...\n", "line 2"), "no image": ("image,caption\n,A cat.\n", "line 2"),
    "short line": ("image,caption\na.png\n", "line 2"), "second line": ("image,caption\na.png,A cat.\nb.png,A, dog\n", "line 3"),
    "open quote": ('image,caption\na.png,"A cat.\n', "CSV"), "Latin-1": ("image,caption\na.png,Ein Käfer.\n".encode("latin-1"), "CSV"),
    "UTF-16": ("image,caption\na.png,A cat.\n".encode("utf-16"), "CSV"), "endless field": ("image,caption\na.png," + "x" * 200_000, "CSV"),
    "a picture": (samples.pictures()["png RGB"], "CSV"),
}

@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_cannot_be_trusted_is_refused(name, folder):
    content, word = BAD_TABLES[name]
    with refused(DataError, word): load_captioned_folder(folder, table(folder, content))

NAMES = ["../secret.png", "/etc/passwd", "sub/a.png", "./a.png", "missing.png", "a.png/", "A" * 300 + ".png", "..", ".", "~/x.png", "a\0.png"]

@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_names_lead_nowhere_but_into_the_folder(name, folder):
    (folder.parent/"secret.png").write_bytes(samples.pictures()["png RGB"])
    (folder/"sub").mkdir()
    (folder/"sub"/"a.png").write_bytes(samples.pictures()["png RGB"])
    with refused(DataError): load_captioned_folder(folder, table(folder, f"image,caption\n{name},A cat.\n"))

def test_a_damaged_picture_is_found_before_training(folder):
    (folder/"b.png").write_bytes(samples.pictures()["png RGB"][:500])
    with refused(MediaError, "b.png"): load_captioned_folder(folder, table(folder, GOOD_TABLES["plain"]))

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["pipe", "folder", "nothing", "link to nothing"])
def test_a_table_that_is_no_file(make, folder):
    path = folder.parent/"captions.csv"
    if make == "pipe": os.mkfifo(path)
    if make == "folder": path.mkdir()
    if make == "link to nothing": path.symlink_to("nothing")
    with refused(DataError, "captions.csv", seconds=2): load_captioned_folder(folder, path)

@pytest.mark.parametrize("make", ["nothing", "file", "empty"])
def test_a_folder_that_holds_no_pictures(make, tmp_path):
    place = tmp_path/"place"
    if make == "file": place.touch()
    if make == "empty": place.mkdir()
    with refused(DataError, "place"): load_captioned_folder(place, table(tmp_path/"x", GOOD_TABLES["plain"]))

def test_too_few_records_to_set_some_aside():
    with refused(DataError, "too few"): split_validation([{"id": i} for i in range(19)])

# --- JSON lines

def lines(tmp_path, *rows):
    path = tmp_path/"rows.jsonl"
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return path

NO_JSON = [b"{", b"hello", b'{"a": 1', b"[1, 2", b"{'a': 1}", b'{"a": 1} {"a": 2}', b"\0", b'{"a": undefined}', b'"']

@pytest.mark.parametrize("line", NO_JSON, ids=str)
def test_a_line_that_is_no_json_is_named(line, tmp_path):
    with refused(DataError, "line 3", "rows.jsonl"): list(json_lines(lines(tmp_path, {"a": 1}, b"", line)))

def test_a_line_with_a_hundred_thousand_brackets_is_named(tmp_path):
    with refused(DataError, "line 2"): list(json_lines(lines(tmp_path, {}, b"[" * 100_000)))

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["pipe", "folder", "nothing", "Latin-1"])
def test_lines_that_are_no_text(make, tmp_path):
    path = tmp_path/"rows.jsonl"
    if make == "pipe": os.mkfifo(path)
    if make == "folder": path.mkdir()
    if make == "Latin-1": path.write_bytes("Käfer".encode("latin-1"))
    with refused(DataError, "rows.jsonl"): list(json_lines(path))

NOTE = {"image": "a.jpg", "captions": ["A cat."], "details": ["A black cat."], "qa": [["What?", "A cat"]], "scene": "yard"}
LABEL = {"image": "a.jpg", "size": [640, 480], "boxes": [[0, .5, .5, .1, .1]]}
SCENE = {"captions": ["A cat sleeps."], "objects": {"cat": 1}, "place": "yard", "people": []}
PHOTO = {"coco_id": 9, "file": "000000000009.jpg", "captions": ["A cat."], "qa": [["What?", "A cat"]]}

READERS = {"annotations": (load_annotations, NOTE), "labels": (load_labels, LABEL), "scenes": (load_scenes, SCENE), "texts of photos": (load_coco_texts, PHOTO)}

@pytest.mark.parametrize("name", READERS)
def test_a_good_line_is_read(name, tmp_path):
    reader, row = READERS[name]
    assert len(reader(lines(tmp_path, row))) == 1

BAD_ROWS = [
    *[("annotations", {"image": name}) for name in (None, 5, "", "../a.jpg", "/a.jpg", "a b/c.jpg", ["a.jpg"], "a\n.jpg")],
    *[("annotations", {"captions": captions}) for captions in (None, [], "A cat.", [""], [5], [None], {"a": "b"})],
    *[("annotations", {"qa": qa}) for qa in (None, "What?", [["What?"]], [["What?", ""]], [["What?", 5]], {"What?": "A cat"})],
    *[("annotations", {"scene": scene}) for scene in (None, "", 5)],
    *[("labels", {"size": size}) for size in (None, [640], [640, 0], [640, -1], [640.5, 480], "640x480", [None, None])],
    *[("labels", {"boxes": boxes}) for boxes in (None, "", [[0]], [[0, .5, .5, .1]], [[0, .5, .5, 0, .1]], [[0, .5, .5, 2, .1]], [[80, .5, .5, .1, .1]],
                                                 [[.5, .5, .5, .1, .1]], [["cat", .5, .5, .1, .1]], [[0, None, .5, .1, .1]], [[0, 1e400, .5, .1, .1]], [[[0], .5, .5, .1, .1]])],
    *[("scenes", {"captions": captions}) for captions in (None, [], "A cat.", [""], [5], 5)],
    *[("scenes", {"objects": objects}) for objects in (None, 5, {"cat": 0}, {"cat": -1}, {"cat": 1.5}, {"unicorn": 1}, ["cat"], {"cat": "1"})],
    *[("scenes", {"qa": qa}) for qa in (5, [5], [["What?"]], [["What?", 5]], None)],
    *[("texts of photos", {"coco_id": number}) for number in (None, 0, -1, "9", 9.5, True, [9])],
    *[("texts of photos", {"captions": captions}) for captions in (None, "A cat.", [""], [5], {"a": 1})],
    *[("texts of photos", {"vqa": pairs}) for pairs in (None, "What?", [["What?"]], [["What?", "a", "b"]], [["", "a"]], [[1, 2]])],
]

@pytest.mark.parametrize("name, change", BAD_ROWS, ids=[f"{name} {change}"[:60] for name, change in BAD_ROWS])
def test_a_row_that_makes_no_sense_is_named(name, change, tmp_path):
    reader, row = READERS[name]
    with refused(DataError, "line 1"): reader(lines(tmp_path, row | change))

@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("row", [5, None, [], "text", {}], ids=str)
def test_a_row_that_is_no_object_is_named(name, row, tmp_path):
    reader, good = READERS[name]
    with refused(DataError, "line 1"): reader(lines(tmp_path, row, good))

@pytest.mark.parametrize("name", ["annotations", "labels", "texts of photos"])
def test_the_same_photo_twice_is_refused(name, tmp_path):
    reader, row = READERS[name]
    with refused(DataError, "line 2"): reader(lines(tmp_path, row, row))

def test_a_folder_without_photos_of_coco(tmp_path):
    with refused(DataError): find_coco_photos(tmp_path)
    with refused(DataError): find_coco_photos(tmp_path/"missing")
    with refused(DataError, "train or validation"): coco_records(tmp_path, "test")

# --- COCO's JSON

def coco(**changes):
    "A COCO caption and instances file of one image."
    return {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "A cat.", "category_id": 17}],
            "categories": [{"id": 17, "name": "cat"}]} | changes

def written(tmp_path, content):
    path = tmp_path/"coco.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path

def test_a_good_file_of_coco_is_read(folder):
    path = written(folder.parent, coco())
    assert read_captions(path) == {"a.png": ["A cat."]} and read_instances(path) == {"a.png": ("cat",)}
    assert [item.references for item in coco_items(folder, path, path)] == [["A cat."]]

OUTSIDE = ["../secret.png", "/etc/passwd", "sub/../../secret.png", "..\\secret.png", "C:\\secret.png", "C:secret.png", "\\\\host\\share\\x.png", "//host/x.png", ".."]

@pytest.mark.parametrize("name", OUTSIDE)
def test_file_names_of_coco_stay_in_the_folder(name, folder):
    (folder.parent/"secret.png").write_bytes(samples.pictures()["png RGB"])
    with refused(EvaluationError, "outside"): coco_items(folder, written(folder.parent, coco(images=[{"id": 1, "file_name": name}])))

BAD_COCO = {
    "no JSON": b"hello", "cut off": json.dumps(coco()).encode()[:50], "Latin-1": "Käfer".encode("latin-1"), "empty": b"", "a list": [], "a number": 5, "nothing": None,
    "no images": {"annotations": []}, "images none": coco(images=None), "images 5": coco(images=5), "no annotations": {"images": []},
    "image 5": coco(images=[5]), "no file name": coco(images=[{"id": 1}]), "file name 5": coco(images=[{"id": 1, "file_name": 5}]),
    "file name none": coco(images=[{"id": 1, "file_name": None}]), "file name a list": coco(images=[{"id": 1, "file_name": ["a.png"]}]),
    "id a list": coco(images=[{"id": [1], "file_name": "a.png"}]), "annotation 5": coco(annotations=[5]),
    "another image": coco(annotations=[{"image_id": 2, "caption": "A cat."}]), "no caption": coco(annotations=[{"image_id": 1}]), "no captions": coco(annotations=[]),
}

@pytest.mark.parametrize("name", BAD_COCO)
def test_a_file_that_is_none_of_coco_is_refused(name, tmp_path):
    with refused(EvaluationError, "coco.json"): read_captions(written(tmp_path, BAD_COCO[name]))

BAD_INSTANCES = {
    "no categories": {key: value for key, value in coco().items() if key != "categories"}, "categories 5": coco(categories=5),
    "another category": coco(categories=[{"id": 18, "name": "cat"}]), "an unknown class": coco(categories=[{"id": 17, "name": "unicorn"}]),
    "a class 5": coco(categories=[{"id": 17, "name": 5}]), "a category 5": coco(categories=[5]),
}

@pytest.mark.parametrize("name", BAD_INSTANCES)
def test_instances_that_make_no_sense_are_refused(name, tmp_path):
    with refused((EvaluationError, DataError), "coco.json"): read_instances(written(tmp_path, BAD_INSTANCES[name]))

def test_images_that_are_not_there_are_counted(folder):
    path = written(folder.parent, coco(images=[{"id": 1, "file_name": "missing.png"}]))
    with refused(EvaluationError, "missing.png"): coco_items(folder, path)

def test_a_very_long_file_name_of_coco_is_refused(folder):
    with refused(EvaluationError): coco_items(folder, written(folder.parent, coco(images=[{"id": 1, "file_name": "x" * 300}])))

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["pipe", "folder", "nothing"])
def test_a_coco_file_that_is_none(make, tmp_path):
    path = tmp_path/"coco.json"
    if make == "pipe": os.mkfifo(path)
    if make == "folder": path.mkdir()
    with refused(EvaluationError, "coco.json"): read_captions(path)

# --- records

BAD_MESSAGES = [
    [5], [None], ["hi"], [{}], [{"role": "user"}], [{"role": "user", "content": 5}], [{"role": "user", "content": None}], [{"role": "user", "content": ["hi"]}],
    [{"role": "user", "content": [{"type": "image"}]}], [{"role": "user", "content": [{"type": "audio", "image": "a.png"}]}],
]

@pytest.mark.parametrize("messages", BAD_MESSAGES, ids=str)
def test_messages_that_are_none_make_no_record(messages):
    with refused(DataError): make_record(messages)

IMAGE = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
BAD_RECORDS = [
    None, 5, "text", [], {}, {"messages": None}, {"messages": "hi"}, {"messages": [5]}, {"messages": [IMAGE]}, {"messages": [IMAGE], "images": []},
    {"messages": [IMAGE], "images": ["a.png", "b.png"]}, {"messages": [IMAGE], "audios": ["a.wav"]}, {"messages": [{"role": "user", "content": "hi"}], "images": ["a.png"]},
]

@pytest.mark.parametrize("record", BAD_RECORDS, ids=str)
def test_a_record_whose_media_do_not_fit_is_refused(record):
    with refused(DataError): inline_media(record)

def test_columns_of_a_record_are_not_overwritten():
    with refused(DataError, "images"): make_record([IMAGE], images=[np.zeros((2, 2, 3), np.uint8)])
