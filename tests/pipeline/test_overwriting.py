"""--overwrite_output_dir removes what the same verb wrote there: no input, no folder of another verb, no other file."""

import shutil

import pytest

REMOVES_ONLY_ITS_OWN = "removes only what it made itself: remove it first, or name another --output_dir"


def make_bundle(folder):
    """What tells a bundle."""
    folder.mkdir()
    (folder / ".dynabert").write_text("export\n")
    (folder / "bundle.json").write_text('{"format_version": 1, "files": {"model.pdmodel": {}}}')
    (folder / "model.pdmodel").touch()


def snapshot(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(dynabert, tmp_path):
    """A command that is refused in one line, with nothing written or removed; returns the line."""

    def run(*words):
        before = snapshot(tmp_path)
        done = dynabert(*words)
        assert (done.code, done.out) == (2, ""), done.err
        assert snapshot(tmp_path) == before
        return done.err.splitlines()[-1].removeprefix("error: ")

    return run


@pytest.fixture
def run_folder(chain, tmp_path):
    return shutil.copytree(chain, tmp_path / "run")


@pytest.mark.parametrize("output", ["depth", ".", "finetune"])
def test_extract_replaces_neither_its_supernet_nor_a_stage_nor_a_run(refused, run_folder, output):
    folder = run_folder / output
    words = ("extract", run_folder / "depth", "w0.50d0.50", "--output_dir", folder, "--overwrite_output_dir")
    maker = {".": "dynabert run", "finetune": "dynabert finetune"}.get(output)
    if output == "finetune":
        assert refused(*words) == f"{folder} was made by '{maker}', and 'dynabert extract' {REMOVES_ONLY_ITS_OWN}"
    else:
        assert refused(*words) == (
            f"{folder} holds {run_folder / 'depth'}, which is read here: name another --output_dir"
        )


@pytest.mark.parametrize("place", ["mydata", "finetune/mydata"])
def test_finetune_does_not_remove_its_data(refused, run_folder, tiny_folder, tiny_data, place):
    data = shutil.copytree(tiny_data, run_folder / place)
    words = ("--model_name_or_path", tiny_folder, "--data_dir", data, "--max_seq_length", 8, "--overwrite_output_dir")
    message = refused(
        "finetune", *words, "--output_dir", run_folder / place.partition("/mydata")[0].replace("mydata", "")
    )
    assert "which is read here" in message


@pytest.mark.parametrize(
    ("verb", "output", "maker"),
    [
        ("finetune", "rewire", "dynabert rewire"),
        ("rewire", "width", "dynabert train_width"),
        ("train_depth", "width", "dynabert train_width"),
        ("export", "width", "dynabert train_width"),
        ("baseline", "width", "dynabert train_width"),
        ("search", "width", "dynabert train_width"),
        ("finetune", ".", "dynabert run"),
        ("export", ".", "dynabert run"),
        ("search", ".", "dynabert run"),
        ("extract", "bundle", "dynabert export"),
        ("finetune", "bundle", "dynabert export"),
        ("run", "bundle", "dynabert export"),
        ("run", "width", "dynabert train_width"),
        ("quickstart", "width", "dynabert train_width"),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_a_folder_that_another_verb_made_stays(
    refused, run_folder, finetuned, tiny_folder, verb, output, maker, marked
):
    """Whether its mark names the verb, or its content tells."""
    folder = run_folder / output
    if output == "bundle":
        make_bundle(folder)
    if not marked:
        (folder / ".dynabert").write_text("")
    small = ("--max_steps", 1)
    words = {
        "finetune": ("--model_name_or_path", tiny_folder, *small),
        "rewire": (finetuned,),
        "train_depth": (finetuned, *small),
        "export": (finetuned,),
        "extract": (finetuned, "w0.50d0.50"),
        "baseline": ("distilbert", finetuned, *small),
        "search": (finetuned, "--force"),
        "run": ("default", "-o", f"model_name_or_path={tiny_folder}"),
        "quickstart": ("-o", f"model_name_or_path={tiny_folder}"),
    }[verb]
    message = refused(verb, *words, "--output_dir", folder, "--overwrite_output_dir")
    assert f"{folder} was made by '{maker}'" in message


@pytest.mark.parametrize("verb", ["finetune", "run", "export", "extract"])
def test_a_file_that_the_verb_did_not_write_is_listed(refused, run_folder, finetuned, tiny_folder, tiny_data, verb):
    small = ("--data_dir", tiny_data, "--max_seq_length", 8, "--max_steps", 1)
    run = ["-o", f"model_name_or_path={tiny_folder}", "-o", f"task.data_dir={tiny_data}", "-o", "train.max_steps=1"]
    folder, mine, words = {
        "finetune": (run_folder / "finetune", "notes.txt", ("--model_name_or_path", tiny_folder, *small)),
        "run": (run_folder, "width/vdl/notes.txt", ("default", *run)),
        "export": (run_folder / "bundle", "predictions.tsv", (finetuned,)),
        "extract": (run_folder / "small", "mydata/train.tsv", (finetuned, "w0.50d0.50")),
    }[verb]
    if verb == "export":
        make_bundle(folder)
    if verb == "extract":
        shutil.copytree(finetuned, folder)
        (folder / ".dynabert").write_text("extract\n")
    (folder / mine).parent.mkdir(exist_ok=True)
    (folder / mine).write_text("mine")
    message = refused(verb, *words, "--output_dir", folder, "--overwrite_output_dir")
    assert "did not write, and is not removed: " in message
    assert mine.partition("width/")[2] or mine.partition("/")[0] in message


def test_a_stage_replaces_a_folder_of_that_stage_whoever_made_it(dynabert, run_folder, tiny_folder, tiny_data):
    """With the search in it, which is of the weights that go."""
    folder = run_folder / "finetune"
    (folder / "search").mkdir()
    (folder / "search" / "study.db").touch()
    words = ("--model_name_or_path", tiny_folder, "--data_dir", tiny_data, "--max_seq_length", 8, "--max_steps", 1)
    done = dynabert("finetune", *words, "--output_dir", folder, "--overwrite_output_dir")
    assert done.code == 0, done.err
    assert not (folder / "search").exists()
    assert {path.name for path in run_folder.iterdir()} >= {"rewire", "width", "depth", "run.yaml", "grid.json"}


def test_extract_and_export_replace_their_own_result(dynabert, finetuned, tmp_path):
    for verb, words in (("extract", (finetuned, "w0.50d0.50")), ("extract", (finetuned, "w0.25d0.50"))):
        done = dynabert(verb, *words, "--output_dir", tmp_path / "small", "--overwrite_output_dir")
        assert done.code == 0, done.err
    assert (tmp_path / "small" / ".dynabert").read_text() == "extract\n"


def test_an_unfinished_stage_does_not_resume_in_a_bundle_or_a_search(refused, run_folder, tiny_folder):
    """They have no metadata of a model, and were taken for a stage's folder."""
    make_bundle(run_folder / "bundle")
    (run_folder / "depth" / "search").mkdir()
    (run_folder / "depth" / "search" / ".dynabert").write_text("search\n")
    (run_folder / "depth" / "search" / "study.db").touch()
    for name in ("bundle", "depth/search"):
        words = ("--model_name_or_path", tiny_folder, "--max_steps", 1, "--output_dir", run_folder / name)
        assert "exists: pass --overwrite_output_dir to replace it" in refused("finetune", *words)


def test_through_a_link_the_folder_that_it_names_is_replaced(dynabert, finetuned, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "small").symlink_to(tmp_path / "disk")
    for _ in range(2):
        words = (finetuned, "w0.50d0.50", "--output_dir", tmp_path / "small", "--overwrite_output_dir")
        assert dynabert("extract", *words).code == 0
    assert (tmp_path / "small").is_symlink()
    assert (tmp_path / "disk" / "dynabert.json").exists()
