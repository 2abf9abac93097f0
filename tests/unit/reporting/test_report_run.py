"""The page as text: all that it shows, that it needs nothing else, and that it is whole or absent."""

import json
import re
import threading
import time
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from report_folder import SEARCHED, edit_json, edit_metadata, write_run
from visualdl import LogReader

import dynabert_paddle as db
from dynabert_paddle.errors import UsageError
from dynabert_paddle.files.atomic import read_json
from dynabert_paddle.files.claim import claim
from dynabert_paddle.reporting import collect

pytestmark = pytest.mark.reference

CHARTS = ["grid", "tradeoff0", "tradeoff4", "heads", "neurons", "kept", "training-finetune", "training-depth"]
VOID_ELEMENTS = {"meta", "input", "link", "br"}


class Page(HTMLParser):
    """Elements with their attributes, and the text inside elements with an id; refuses what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, name in self._open:
            if name:
                self.texts[name] = self.texts.get(name, "") + data


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run with its report, which tests only read."""
    folder = write_run(tmp_path_factory.mktemp("report") / "run")
    db.report(folder)
    return folder


@pytest.fixture(scope="module")
def chinese(done, tmp_path_factory):
    """The page of the same run in Chinese."""
    return render(done, language="zh", output_file=tmp_path_factory.mktemp("chinese") / "page.html")


@pytest.fixture
def text(done):
    return (done / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def settings_only(tmp_path):
    """A run with nothing but its settings."""
    (tmp_path / "run.yaml").write_text("task: {name: snips}\n", encoding="utf-8")
    return tmp_path


def render(folder, **options):
    return db.report(folder, visualdl=False, **options).read_text(encoding="utf-8")


def test_every_chart_has_a_text_alternative(text):
    page = Page(text)
    pictures = [attrs["aria-labelledby"].split() for tag, attrs in page.elements if tag == "svg"]
    named = {title.removesuffix("-title") for title, _ in pictures}
    assert set(CHARTS) <= named
    for title, finding in pictures:
        assert len(page.texts[title]) > 5 and re.search(r"\d", page.texts[finding]), finding


def test_every_sub_network_and_seed_is_in_a_table(text):
    for name in (*SEARCHED, "w0.25d0.50", "distilbert w1.00d0.50"):
        assert f"<td>{name}</td>" in text


def test_marks_have_values_on_hover_in_both_languages(text):
    titles = re.findall(r'<title data-zh="([^"]+)">([^<]+)</title>', text)
    assert [en for zh, en in titles if en.startswith("w0.50d0.75: accuracy 0.8400, macro_f1 0.8300, 1.0")]
    assert [en for zh, en in titles if en.startswith("S2 l0h3f32-l1h2f16-l3h3f32: accuracy on held-out training data")]
    assert [zh for zh, en in titles if zh.startswith("第 1 步") and zh.endswith("损失 loss 2")]


def test_the_page_needs_nothing_from_elsewhere(text):
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for tag, attrs in Page(text).elements:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attrs
        assert all(value.startswith(("#", "data:")) for key, value in attrs.items() if key in ("href", "xlink:href"))
    assert "@import" not in text and not re.findall(r"url\((?!#)", text)


@pytest.mark.parametrize(("language", "checked"), [("auto", "en"), ("en", "en"), ("zh", "zh")])
def test_the_language_is_chosen(settings_only, language, checked):
    elements = Page(render(settings_only, language=language)).elements
    choices = {attrs["id"]: "checked" in attrs for tag, attrs in elements if tag == "input"}
    assert choices == {"en": checked == "en", "zh": checked == "zh"}
    assert dict(elements[0][1])["lang"] == checked


def test_names_of_users_are_escaped_and_values_need_not_be_numbers(folder):
    evil = '<script>alert("x")</script>$\\frac$\x01'
    edit_metadata(folder / "depth", task={"name": evil, "labels": [evil]})
    path = folder / "run.yaml"
    path.write_text(json.dumps({"model_name_or_path": evil, "task": {"name": evil}}), encoding="utf-8")
    edit_json(folder / "baselines" / "pruned-1" / "baseline.json", lambda values: values.update(method=evil))
    edit_json(folder / "grid.json", lambda values: [row.update({evil: row.pop("accuracy")}) for row in values["rows"]])
    edit_json(folder / "grid.json", lambda values: values["rows"][2].update({evil: float("nan")}))
    log = folder / "width" / "train.jsonl"
    log.write_text(log.read_text(encoding="utf-8") + '{"step": 21, "train/loss": NaN, "train/logit": Infinity}\n')
    text = render(folder)
    assert 'id="training-width-title"' in text
    assert text.count("<script>") == 1
    assert text.count("&lt;script&gt;alert(") > 5
    Page(text)


def test_a_page_with_missing_parts_names_the_commands_for_them(folder):
    for path in ("depth", "width", "rewire", "baselines"):
        (folder / path).rename(folder.parent / path)
    (folder / "grid.json").unlink()
    text = render(folder)
    for command in ("dynabert search {folder}/finetune", "dynabert baseline", "dynabert rewire"):
        assert f"&#39;{command.format(folder=folder)}" in text
    assert 'id="training-finetune-title"' in text


def test_the_chosen_subnet_of_a_search_is_stated(text, folder):
    assert f"The chosen sub-network {SEARCHED[1]} was measured: 1.00 ms." in text
    edit_json(folder / "depth" / "search" / "search.json", lambda values: values.update(best=None))
    assert "No sub-network that was found fits the budget." in render(folder / "depth")


def test_errors_of_a_search_and_what_chose_are_told(folder):
    def choose_by_divergence(values):
        values.update(score="divergence", num_examples=250)
        for row in (values["full"], values["best"], *values["grid"], *values["pareto"]):
            row.update(standard_error=0.0123, divergence=0.1, divergence_error=0.01)

    edit_json(folder / "depth" / "search" / "search.json", choose_by_divergence)
    text = render(folder)
    assert "bars and ± are standard errors, of examples that chose nobody." in text
    assert "200 sub-networks compared by their divergence from the full model; scores on 250 examples of" in text
    assert ": accuracy on 250 examples of held-out training data 0.7500 ± 0.0123; " in text


def test_a_search_of_other_weights_is_named_and_not_drawn(folder):
    (folder / "depth" / "model.safetensors").write_bytes(b"trained again")
    text = render(folder)
    assert f"{folder}/depth/search/search.json is not shown: it belongs to other weights" in text
    assert f"&#39;dynabert search {folder}/depth --overwrite_output_dir&#39;" in text
    assert SEARCHED[0] not in text


def test_the_chosen_one_is_among_the_few_of_a_long_search(folder):
    def lengthen(values):
        values["pareto"] = [values["pareto"][0]] * 30 + [values["pareto"][1]] + [values["pareto"][2]] * 9

    edit_json(folder / "depth" / "search" / "search.json", lengthen)
    text = render(folder)
    names = re.findall(r"<title[^>]*>(S\d+), layer", text)
    # Every fourth of 40, and the 31st.
    assert list(dict.fromkeys(names)) == ["S1", "S5", "S9", "S13", "S17", "S21", "S25", "S29", "S31", "S33", "S37"]


def next_command(dynabert, folder):
    done = dynabert("report", folder, "--no_visualdl")
    assert done.code == 0, done.err
    return done.err.splitlines()[-1]


def test_the_next_command_uses_this_folder_and_the_recommended_subnet(dynabert, folder):
    searched = read_json(folder / "depth" / "search" / "search.json")["best"]["subnet"]
    model = folder / "depth"
    expected = f"next: dynabert export {model} --subnet {{}} --output_dir NEW_DIR"
    assert next_command(dynabert, folder) == next_command(dynabert, model) == expected.format(searched)
    (model / "search" / "search.json").unlink()

    def raise_score(values):
        values["rows"][4]["accuracy"] = 0.899

    edit_json(folder / "grid.json", raise_score)
    name = read_json(folder / "grid.json")["rows"][4]["subnet"]
    assert next_command(dynabert, folder) == expected.format(name)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{name} is the cheapest within 1 % of the full model: 0.8990 against 0.9000" in text
    # A stage alone has recorded scores, but no costs.
    assert next_command(dynabert, model) == f"next: dynabert export {model} --output_dir NEW_DIR"


def test_the_next_command_of_a_run_without_a_model_is_the_run(dynabert, settings_only):
    assert next_command(dynabert, settings_only) == f"next: dynabert run {settings_only / 'run.yaml'}"


def test_the_title_is_in_the_pages_language(text, chinese):
    assert "<title>DynaBERT report: run</title>" in text
    assert re.search("<title>DynaBERT 报告.run</title>", chinese)


def test_a_folder_with_settings_only_has_a_page(settings_only):
    text = render(settings_only)
    assert "&#39;dynabert run&#39;" in text and "svg" not in {tag for tag, _ in Page(text).elements}


def test_visualdl_reads_images_histograms_and_scores(done):
    (path,) = (done / "vdl_report").iterdir()
    reader = LogReader(file_path=str(path))
    tags = reader.get_tags()
    images = {tag.replace("%", "/") for tag in tags["image"]}
    assert {f"report/{name}" for name in CHARTS} <= images
    assert reader.get_data("image", "report/grid")[0].image.encoded_image_string.startswith(b"\x89PNG")
    (histogram,) = reader.get_data("histogram", "importance/neurons/layer3")
    assert sum(histogram.histogram.hist) == 48
    (point,) = reader.get_data("scalar", "dev/accuracy/w0.50d0.75")
    assert np.isclose(point.value, 0.84)


def test_a_second_report_of_the_same_files_is_the_same_and_replaces_the_first(done):
    before, text = sorted(done.rglob("*")), (done / "report.html").read_text(encoding="utf-8")
    db.report(done)
    assert sorted(done.rglob("*")) == before
    assert (done / "report.html").read_text(encoding="utf-8") == text
    (path,) = (done / "vdl_report").iterdir()
    assert len(LogReader(file_path=str(path)).get_data("image", "report/grid")) == 1


def test_the_process_keeps_its_own_plots_as_they_were(settings_only):
    before = dict(matplotlib.rcParams)
    render(settings_only)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("output", "message"),
    [("no/page.html", "there is no folder"), ("depth", "cannot be written: Is a directory")],
)
def test_a_page_that_cannot_be_written_leaves_nothing(settings_only, output, message):
    (settings_only / "depth").mkdir()
    before = sorted(settings_only.rglob("*"))
    with pytest.raises(db.DynabertError, match=message):
        db.report(settings_only, output_file=settings_only / output)
    assert sorted(settings_only.rglob("*")) == before


def test_an_unknown_language_is_refused(settings_only):
    with pytest.raises(db.DynabertError, match="language is auto, en, zh, not 'cn'"):
        db.report(settings_only, language="cn")


def test_a_damaged_file_leaves_the_old_page_unchanged(settings_only):
    page = db.report(settings_only, visualdl=False)
    before = page.read_bytes()
    (settings_only / "grid.json").write_text("{", encoding="utf-8")
    with pytest.raises(db.DynabertError, match=r"grid.json: not JSON"):
        db.report(settings_only)
    assert page.read_bytes() == before and not (settings_only / "vdl_report").exists()


def test_a_report_waits_for_another_of_the_same_folder(settings_only):
    """They failed half of the time, with the advice to make room."""
    with claim(settings_only / "vdl_report", None):
        thread = threading.Thread(target=db.report, args=[settings_only])
        thread.start()
        time.sleep(0.3)
    thread.join()
    assert [path.name for path in (settings_only / "vdl_report").iterdir()] == ["vdlrecords.report.log"]


@pytest.mark.parametrize("name", ["run.yaml", "notes.txt"])
def test_a_file_that_is_no_page_is_not_replaced(settings_only, name):
    path = settings_only / name
    if not path.exists():
        path.write_text("mine")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=f"{name} exists and is no HTML page: name another output_file"):
        db.report(settings_only, output_file=path)
    assert path.read_bytes() == before


def test_a_folder_that_changes_while_it_is_read_is_read_again(settings_only, monkeypatch):
    """Else the settings of one run stand beside the text, or the grid, of another."""
    real, loaded = collect.load_config, []

    def change_first(path):
        loaded.append(real(path))
        if len(loaded) == 1:
            path.write_text("task: {name: cola}\n")
        return loaded[-1]

    monkeypatch.setattr(collect, "load_config", change_first)
    run = collect.collect(settings_only)
    assert (run.config.task.name, run.config_text, len(loaded)) == ("cola", "task: {name: cola}\n", 2)
