"Data sets of one's own: any table is read as it stands, or its file and line are named."
import json, os, struct
import pytest
from helpers import NEEDS_FIFOS, refused
import samples
from mmllm.data import DataError, load_records, parse_mixture

ROW = {"image": "a.png", "caption": "A cat."}
TABLE = "image,caption\na.png,A cat.\n"

@pytest.fixture
def records(tmp_path, cache):
    "A function: {name: content} -> the records of a folder with these files and a picture."
    def load(files, table="", **options):
        for name, content in {"a.png": samples.pictures()["png RGB"], **files}.items():
            path = tmp_path/"set"/name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(load_records(tmp_path/"set"/table, **options))
    return load

@pytest.mark.parametrize("files", [
    {"t.csv": TABLE}, {"t.csv": "\ufeff" + TABLE}, {"t.csv": TABLE.replace("\n", "\r\n")}, {"t.csv": TABLE.rstrip()}, {"t.tsv": TABLE.replace(",", "\t")}, {"t.csv": TABLE, ".DS_Store": b"\0\1"},
    {"t.csv": TABLE, "README.md": "x"}, {"t.csv": TABLE, "Thumbs.db": b"\0"}, {"t.csv": "image,caption\n\n\na.png,A cat.\n\n"}, {"t.jsonl": json.dumps(ROW)}, {"t.jsonl": json.dumps(ROW) + "\r\n\r\n"},
    {"t.json": json.dumps([ROW])}, {"t.json": json.dumps({"data": [ROW], "version": 1})}, {"a\nb.png": samples.pictures()["gif"], "t.csv": 'image,caption\n"a\nb.png",A cat.\n'},
    {"-rf.png": samples.pictures()["gif"], "t.csv": "image,caption\n-rf.png,A cat.\n"}, {"~a.png": samples.pictures()["gif"], "t.csv": "image,caption\n~a.png,A cat.\n"},
], ids=lambda files: ascii(list(files))[:50])
def test_tables_as_programs_write_them_are_read(files, records):
    assert [record["captions"] for record in records(files)] == [["A cat."]]

@pytest.mark.parametrize("content", [
    TABLE.replace(",", ";"), "", "image,caption\n", ",\na.png,x\n", "image,caption\na.png\n", "image,caption\na.png,A cat, black\n", 'image,caption\na.png,"open\n', TABLE.encode("utf-16"),
    "image,caption\na.png,é\n".encode("latin-1"), "image,caption\na.png," + "x" * 200_000, "image,caption\n../a.png,x\n", "image,caption\n/etc/passwd,x\n", "image,caption\nftp://x/a.png,x\n",
    f"image,caption\n{'x' * 300},x\n", "image,caption\n.,x\n", "image,caption\nset,x\n", ",".join(f"c{i}" for i in range(100_000)) + "\n", "image,caption\na.png,   \n",
], ids=lambda content: ascii(content[:30]))
def test_a_csv_that_cannot_be_trusted_is_refused(content, records):
    with refused(DataError): records({"t.csv": content})

COCO = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "A cat."}]}

@pytest.mark.parametrize("found", [
    None, 5, "x", [], {}, [[1]], [None], {"a": [1], "b": [2]}, {"a": ["x"]}, {**COCO, "images": ["x"]}, {**COCO, "annotations": ["x"]}, {"images": [1], "annotations": [2]}, {"images": [], "annotations": []},
    {**COCO, "annotations": [{"image_id": [1], "caption": "x"}]}, {**COCO, "images": [{"id": [1]}]}, {**COCO, "annotations": []}, {**COCO, "annotations": [{"image_id": 1, "caption": None}]},
    {**COCO, "images": [{"id": 1, "file_name": "../../a.png"}]}, {"questions": ["x"]}, {"questions": [{"question": "x"}]},
], ids=lambda found: ascii(found)[:60])
def test_a_json_of_another_build_is_refused(found, records):
    with refused(DataError): records({"t.json": json.dumps(found)})

ASKED = {"questions": [{"question": "What?", "image_id": 1, "question_id": 1}], "data_subtype": "val2014"}
ANSWER = {"annotations": [{"question_id": 1, "multiple_choice_answer": "A cat."}]}

@pytest.mark.parametrize("asked, answers", [
    (ASKED, ANSWER), (ASKED, [1]), (ASKED, {"annotations": ["x"]}), (ASKED, {"annotations": None}), (ASKED, {"annotations": [{"question_id": [1]}]}), ({**ASKED, "questions": ["x"]}, ANSWER),
    *[({**ASKED, "questions": [{"question": "What?", "image_id": id, "question_id": 1}]}, ANSWER) for id in (None, "one", [1], 1.5)], ({**ASKED, "data_subtype": "../../etc/"}, ANSWER),
], ids=lambda found: ascii(found)[:60])
def test_questions_of_another_build_are_refused(asked, answers, records):
    with refused(DataError): records({"v2_questions.json": json.dumps(asked), "v2_annotations.json": json.dumps(answers)}, "v2_questions.json")

@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path), lambda path: path.symlink_to("nothing")], ids=["pipe", "device", "circle", "nothing"])
@NEEDS_FIFOS
def test_what_is_no_ordinary_file_is_refused_and_not_waited_for(name, make, tmp_path):
    make(tmp_path/name)
    with refused(DataError): load_records(tmp_path/name)
    with refused(DataError, "no table"): load_records(tmp_path)

def test_what_vanishes_while_it_is_looked_through_is_no_fault(tmp_path, monkeypatch):
    "As folders of /proc do all the time."
    (tmp_path/"gone").mkdir()
    look = os.scandir
    def scandir(place="."):
        if os.path.basename(place) == "gone": raise FileNotFoundError(2, "No such file or directory", place)
        return look(place)
    monkeypatch.setattr(os, "scandir", scandir)
    with refused(DataError, "no table"): load_records(tmp_path)

@pytest.mark.parametrize("line", [
    "// x", json.dumps(ROW) + ",", "\0\0\0", '{"image":"a.png","caption":"A","x":' + "[" * 100_000 + "]" * 100_000 + "}", "[1]", "5", '{"image": "a.png", "caption": "A"', json.dumps({**ROW, "image": "a\0.png"}),
    '{"image": "a\\ud800.png", "caption": "x"}', json.dumps({**ROW, "image": True}), json.dumps({**ROW, "image": {"bytes": "abc"}}), json.dumps({"image": "a.png", "qa": [1, 2]}), json.dumps({"image": "a.png", "qa": [["a", "b", "c"]]}),
    json.dumps({"messages": {}}), json.dumps({"messages": [[1]]}), json.dumps({"conversations": [{"from": ["human"], "value": "x"}]}), json.dumps({"images": ["a.png"], "texts": ["x"]}), json.dumps({"prompt": "x", "completion": "y"}),
], ids=lambda line: ascii(line)[:50])
def test_a_line_that_is_no_row_is_named(line, records):
    with refused(DataError, "line 2"): records({"t.jsonl": json.dumps(ROW) + "\n" + line + "\n"})

@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: b"", lambda d: b"PAR1PAR1", lambda d: d[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1"], ids=["cut", "empty", "mark", "foot"])
def test_a_damaged_parquet_is_refused(damage, records, tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({key: [value] for key, value in ROW.items()}), tmp_path/"whole")
    with refused(DataError): records({"t.parquet": damage((tmp_path/"whole").read_bytes())})

@pytest.mark.parametrize("options", [dict(skip_bad="abc"), dict(skip_bad="nan"), dict(skip_bad="101%"), dict(split="../x"), dict(split="nope"), dict(split="x" * 5000),
    dict(images="nowhere"), dict(images="\0"), dict(images="x" * 5000), dict(images=5), dict(form="nope"), dict(form="llava")], ids=lambda options: str(options)[:40])
def test_an_option_that_makes_no_sense_is_refused(options, records):
    with refused(DataError): records({"t.csv": TABLE}, **options)

@pytest.mark.parametrize("name", ["", "\0", "x" * 5000, "/dev/null", "~nobody/x", "a b/c", "\ud800", None, 5], ids=lambda name: ascii(name)[:20])
def test_a_name_of_nothing_is_refused(name):
    with refused(DataError): load_records(name)

@pytest.mark.parametrize("text", ["", "x,", "a*0", "a*-1", "a:b:c", "a*inf", "*", ":", ",,,", "a*2*3", "a*nan"])
def test_a_mixture_that_cannot_be_read_is_refused(text):
    with refused(DataError): parse_mixture(text)
