"""A run takes a stage for finished, or goes on with one, only with the labels, data and models that it was made of."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import STAGES, make_bert

import dynabert_paddle as db
from dynabert_paddle.backbone.loading import find_backbone
from dynabert_paddle.config.settings import FinetuneConfig
from dynabert_paddle.data.fingerprint import hash_examples
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.array_hash import hash_model
from dynabert_paddle.files.atomic import write_json
from dynabert_paddle.files.hashing import hash_file
from dynabert_paddle.files.metadata import read_metadata, write_metadata
from dynabert_paddle.files.weights import read_safetensors, write_safetensors
from dynabert_paddle.training import loop, stages
from dynabert_paddle.training.made_of import check_hashes, hash_data, hash_source


@pytest.fixture
def folder(chain, tiny_data, tmp_path):
    """A finished run, and data of its own."""
    shutil.copytree(chain, tmp_path / "out")
    shutil.copytree(tiny_data, tmp_path / "data")
    (tmp_path / "out" / "run.yaml").unlink()  # which names the data's folder
    return tmp_path


def settings_of(folder, tiny_folder, *more, name="custom"):
    """The settings of the short run, on the user's own copy of the data."""
    words = [f"stages=[{', '.join(STAGES)}]", "task.max_seq_length=16", "train.max_steps=10"]
    words += ["train.learning_rate=2e-3", "train.per_device_train_batch_size=16"]
    words += ["train.logging_steps=2", "train.eval_steps=5", "task.metrics=[accuracy, macro_f1]", *more]
    flags = {"model_name_or_path": str(tiny_folder), "task.data_dir": str(folder / "data"), "task.name": name}
    return db.load_config(None, words, {**flags, "output_dir": str(folder / "out")})


def replace_in(path, old, new, count=-1):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def rewrite(folder, metadata):
    (folder / "dynabert.json").unlink()
    write_metadata(folder, metadata)


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hash_file(path) for path in files}


def refusal(config):
    """The message; nothing is written or removed."""
    (Path(config.output_dir) / "run.yaml").unlink(missing_ok=True)
    before = content(Path(config.output_dir))
    with pytest.raises(UsageError) as caught:
        db.run(config)
    message = str(caught.value)
    assert "\n" not in message
    assert "remove" in message and "and the stages after it" in message
    after = content(Path(config.output_dir))
    after.pop("run.yaml", None)  # which a refusal in the midst of a run keeps
    assert after == before
    return message


def test_the_same_data_is_taken_for_the_same(folder, tiny_folder, caplog):
    with caplog.at_level("INFO", logger="dynabert_paddle"):
        rows = db.run(settings_of(folder, tiny_folder))
    assert caplog.text.count("finished before") == len(STAGES)
    assert rows == json.loads((folder / "out" / "grid.json").read_text())["rows"]


def test_a_renamed_class_is_named(folder, tiny_folder):
    for name in ("train.tsv", "dev.tsv"):
        replace_in(folder / "data" / name, "\tPlayMusic", "\tMusic")
    message = refusal(settings_of(folder, tiny_folder))
    assert "'PlayMusic' is missing, 'Music' is new" in message
    assert str(folder / "out" / "finetune") in message


def test_an_added_class_is_named(folder, tiny_folder):
    with open(folder / "data" / "train.tsv", "a", encoding="utf-8") as file:
        file.write("one more\tSomethingElse\n")
    assert "'SomethingElse' is new" in refusal(settings_of(folder, tiny_folder))


def test_the_next_stage_refuses_renamed_labels(folder, dynabert):
    for name in ("train.tsv", "dev.tsv"):
        replace_in(folder / "data" / name, "\tPlayMusic", "\tMusic")
    done = dynabert("rewire", folder / "out/finetune", "--data_dir", folder / "data", "--output_dir", folder / "new")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "label 'Music' is not one of the task's labels" in done.err
    supernet = db.Supernet.from_pretrained(folder / "out/finetune")
    with pytest.raises(UsageError, match="'PlayMusic' is missing, 'Music' is new"):
        stages.rewire(supernet, db.load_task("custom", data_dir=folder / "data"))
    assert not (folder / "new").exists()


def test_other_training_rows_are_refused(folder, tiny_folder):
    lines = (folder / "data/train.tsv").read_text(encoding="utf-8").splitlines()
    cases = {
        "text": [lines[0], "changed " + lines[1], *lines[2:]],
        "fewer": lines[:-1],
        "order": [lines[0], lines[2], lines[1], *lines[3:]],
    }
    first = next(i for i in range(2, len(lines)) if lines[i].split("\t")[1] != lines[1].split("\t")[1])
    (text, label), (other_text, other) = lines[1].split("\t"), lines[first].split("\t")
    swapped = list(lines)
    swapped[1], swapped[first] = f"{text}\t{other}", f"{other_text}\t{label}"
    cases["labels"] = swapped
    for content in cases.values():
        (folder / "data/train.tsv").write_text("\n".join(content) + "\n", encoding="utf-8")
        assert "was made with other training rows" in refusal(settings_of(folder, tiny_folder))


def test_dev_rows_count_only_where_a_stage_reads_them(folder, tiny_folder, caplog):
    replace_in(folder / "data" / "dev.tsv", "\tPlayMusic", "\tRateBook", 1)
    db.run(settings_of(folder, tiny_folder))
    metadata = read_metadata(folder / "out/rewire")
    assert set(metadata.provenance["made_of"]) == {"train", "model"}
    task = db.load_task("snips", data_dir=folder / "data")
    config = FinetuneConfig(select_on="dev")
    assert set(hash_data(task, config)) == {"train", "dev"}
    made_of = {**metadata.provenance["made_of"], "dev": "0"}
    changed = metadata.replace(provenance={**metadata.provenance, "made_of": made_of})
    with pytest.raises(UsageError, match="was made with other dev rows"):
        check_hashes(folder, changed, hash_data(task, config))


def test_other_settings_are_refused(folder, tiny_folder):
    for word, seen in (
        ("finetune.seed=7", "seed = 42, this run has 7"),
        ("task.max_seq_length=17", "max_seq_length = 16, this run has 17"),
        ("task.metrics=[macro_f1]", "metrics = "),
        ("space.width_mult_list=[1.0, 0.5]", "width_mults = "),
        ("space.depth_mult_list=[1.0, 0.5]", "depth_mults = "),
        ("finetune.class_weights=balanced", "class_weights = None, this run has balanced"),
        ("final.focal_gamma=2", "focal_gamma = 0.0, this run has 2.0"),
        ("depth.early_stopping_patience=3", "early_stopping_patience = None, this run has 3"),
    ):
        assert seen in refusal(settings_of(folder, tiny_folder, word)), word


@pytest.mark.parametrize(("changed", "refused"), [("finetune", "rewire"), ("rewire", "width"), ("depth", "final")])
def test_other_starting_weights_are_refused(folder, tiny_folder, changed, refused):
    model = folder / "out" / changed
    arrays = read_safetensors(model / "model.safetensors")
    name = min(arrays)
    write_safetensors(model / "model.safetensors", {**arrays, name: arrays[name] + 1}, metadata={"format": "np"})
    rewrite(model, read_metadata(model))
    message = refusal(settings_of(folder, tiny_folder))
    assert f"{folder / 'out' / refused} was made with other starting weights" in message


def test_another_backbone_of_the_same_name_is_refused(folder, tiny_folder):
    backbone = folder / "backbone"
    tokenizer = db.Tokenizer.from_pretrained(find_backbone("minilm-l6"))
    db.Supernet(make_bert(num_labels=2, seed=5), tokenizer).save_pretrained(backbone)
    message = refusal(settings_of(folder, backbone))
    assert f"{folder / 'out/finetune'} was made with other starting weights" in message
    assert hash_source(folder / "gone") is None  # one that is gone cannot be compared, and is not needed


def test_another_teacher_is_refused(folder, tiny_folder):
    path = folder / "out/width"
    metadata = read_metadata(path)
    made_of = metadata.provenance["made_of"]
    assert made_of["teacher"] == made_of["model"] == hash_source(folder / "out/rewire")
    changed = {**metadata.provenance, "made_of": {**made_of, "teacher": "0"}}
    rewrite(path, metadata.replace(provenance=changed))
    assert f"{path} was made with other teacher" in refusal(settings_of(folder, tiny_folder))


def test_older_folders_are_compared_by_the_fields_they_have(folder, tiny_folder, caplog):
    for name in STAGES:
        metadata = read_metadata(folder / "out" / name)
        provenance = {key: value for key, value in metadata.provenance.items() if key != "made_of"}
        rewrite(folder / "out" / name, metadata.replace(provenance=provenance))
    db.run(settings_of(folder, tiny_folder))
    for name in ("train.tsv", "dev.tsv"):
        replace_in(folder / "data" / name, "\tPlayMusic", "\tMusic")
    assert "'PlayMusic' is missing, 'Music' is new" in refusal(settings_of(folder, tiny_folder, "stages=[finetune]"))


def test_the_hash_of_a_model_is_that_of_its_folder(chain):
    supernet = db.Supernet.from_pretrained(chain / "depth")
    arrays = {name: tensor.numpy() for name, tensor in supernet.model.state_dict().items()}
    assert hash_model(arrays) == hash_source(chain / "depth") != hash_source(chain / "width")


def test_the_hash_of_rows_does_not_depend_on_the_order_of_the_labels(tiny_data):
    task = db.load_task("snips", data_dir=tiny_data)
    other = task.with_labels(tuple(reversed(task.labels)))
    assert not np.array_equal(task.train.labels, other.train.labels)
    assert hash_examples(task.train, task.labels) == hash_examples(other.train, other.labels)
    assert hash_examples(task.train, task.labels) != hash_examples(task.dev, task.labels)


def interrupted(task, tiny_folder, folder):
    """Fine-tune until the first checkpoint is written."""

    def evaluate(*arguments, **options):
        raise KeyboardInterrupt

    config = FinetuneConfig(max_steps=4, save_steps=1, eval_steps=2, per_device_train_batch_size=8)
    patch = pytest.MonkeyPatch()
    patch.setattr(loop, "evaluate_subnets", evaluate)
    try:
        with pytest.raises(KeyboardInterrupt):
            stages.finetune(tiny_folder, task, output_dir=folder, config=config, max_seq_length=16)
    finally:
        patch.undo()
    assert list(folder.glob("checkpoint-*"))
    return lambda now: stages.finetune(tiny_folder, now, output_dir=folder, config=config, max_seq_length=16)


def test_an_interrupted_stage_compares_labels_and_rows(tiny_folder, folder):
    data, out = folder / "data", folder / "new"
    before = db.load_task("custom", data_dir=data)
    go_on = interrupted(before, tiny_folder, out)
    renamed = dataclasses.replace(before, labels=tuple(label.replace("PlayM", "SayM") for label in before.labels))
    with pytest.raises(
        UsageError, match="other labels .'PlayMusic' is missing, 'SayMusic' is new.: go on with the labels"
    ):
        go_on(renamed)
    _, held_out = before.train.hold_out(14, seed=42)
    row = (data / "train.tsv").read_text(encoding="utf-8").splitlines()[held_out[0] + 1]
    replace_in(data / "train.tsv", row, "another text that is held out\t" + row.split("\t")[1])
    with pytest.raises(UsageError, match="another selection data: go on with the selection data of before"):
        go_on(db.load_task("custom", data_dir=data))
    replace_in(data / "train.tsv", "another text that is held out\t" + row.split("\t")[1], row)
    replace_in(data / "dev.tsv", "\tPlayMusic", "\tRateBook", 1)  # which this stage does not read
    state = next(out.glob("checkpoint-*")) / "state.json"
    values = json.loads(state.read_text())
    for key in ("labels", "selection data"):  # which earlier versions did not keep
        del values["settings"][key]
    values.pop("checksum")
    write_json(state, values)
    assert go_on(db.load_task("custom", data_dir=data)).metadata.stage == "finetune"
