"""Generations of a study: no duplicates, the same after an interruption, and better than random search."""

import inspect
import math
import sqlite3
import sys
from contextlib import closing

import optuna
import pytest
from optuna.trial import TrialState

from dynabert_paddle.errors import DynabertError, ModelError, UsageError
from dynabert_paddle.genomes import GenomeSpace
from dynabert_paddle.search_space import SearchSpace
from dynabert_paddle.searching.evolution import Evolution, evolve, read_rows
from dynabert_paddle.searching.guide import initial_genomes
from dynabert_paddle.searching.pareto import hypervolume, pareto_rows
from dynabert_paddle.searching.scoring import Score
from dynabert_paddle.searching.study import STUDY_FILE, check_genomes, open_study

pytestmark = pytest.mark.reference

SPACE = SearchSpace(heads=(4,) * 3, neurons=(256,) * 3, hidden_size=32, head_dim=8)
GENOMES = GenomeSpace.of(SPACE)
GOALS = ("macs", "params")


def costs(subnet):
    return {"macs": SPACE.num_macs(subnet), "params": SPACE.num_params(subnet)}


def quality(subnet):
    """A made-up score: later layers contribute more, and each additional head and neuron contributes less."""
    worth = sum((layer + 1) * (heads**0.5 + neurons**0.3) for layer, heads, neurons in subnet.parts)
    return worth / sum((layer + 1) * (4**0.5 + 256**0.3) for layer in range(3))


def score(subnets, to_beat):
    return [Score(quality(subnet), stopped=False) for subnet in subnets]


def make_evolution(space=GENOMES, *, seed=0, population_size=6):
    return Evolution(space, GOALS, costs, initial_genomes(space, {}), population_size, seed)


class Killed(BaseException):
    """Simulates the end of the process at any point."""


def names(study):
    return [row["subnet"] for row in read_rows(study)]


def run(folder, count, evaluate=score, **options):
    study = open_study(folder, {"seed": 0}, goals=GOALS)
    evolve(study, make_evolution(**options), evaluate, num_evaluations=count)
    return study


@pytest.fixture(scope="module")
def complete_run(tmp_path_factory):
    return run(tmp_path_factory.mktemp("complete"), 20)


def test_no_sub_network_is_tried_twice(complete_run):
    assert len(set(names(complete_run))) == len(names(complete_run)) == 20


def test_the_dashboard_shows_names_and_costs(complete_run):
    trial = complete_run.trials[10]
    subnet = SPACE.parse(trial.user_attrs["subnet"])
    assert trial.user_attrs == {
        "subnet": SPACE.name(subnet),
        "score": quality(subnet),
        **costs(subnet),
        "stopped": False,
    }
    assert trial.values == [quality(subnet), *costs(subnet).values()]
    assert complete_run.metric_names == ["score", *GOALS]
    assert [direction.name for direction in complete_run.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


@pytest.mark.parametrize("asked", [3, 9])
def test_a_killed_search_resumes_with_the_same_trials(complete_run, tmp_path, asked, monkeypatch):
    """Killed while it asks for a trial, in the middle of a generation."""
    ask, count = optuna.Study.ask, iter(range(1000))

    def ask_or_die(study, *args):
        if next(count) == asked:
            raise Killed
        return ask(study, *args)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", ask_or_die)
        with pytest.raises(Killed):
            run(tmp_path, 20)
    study = run(tmp_path, 20)
    assert names(study) == names(complete_run)
    assert len(study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))) == 0


@pytest.mark.parametrize("told", [4])
def test_a_search_killed_between_two_results_scores_none_again(complete_run, tmp_path, told, monkeypatch):
    tell, count = optuna.Study.tell, iter(range(1000))

    def tell_or_die(study, *args, **options):
        if next(count) == told:
            raise Killed
        return tell(study, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", tell_or_die)
        with pytest.raises(Killed):
            run(tmp_path, 20)
    scored = []

    def record(subnets, to_beat):
        scored.extend(map(SPACE.name, subnets))
        return score(subnets, to_beat)

    assert names(run(tmp_path, 20, record)) == names(complete_run)
    assert scored == names(complete_run)[told:]


def test_more_evaluations_continue_a_finished_search(complete_run, tmp_path):
    run(tmp_path, 8)
    assert names(run(tmp_path, 20)) == names(complete_run)


def test_a_search_of_hundreds_of_generations_resumes():
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    evolve(study, make_evolution(population_size=2), score, num_evaluations=300)
    frames = len(inspect.stack())
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 150)
    try:
        evolve(study, make_evolution(population_size=2), score, num_evaluations=304)
    finally:
        sys.setrecursionlimit(before)
    assert len(read_rows(study)) == 304


def test_a_path_with_a_question_mark_is_refused(tmp_path):
    (tmp_path / "a?b").mkdir()
    with pytest.raises(UsageError, match="cannot have '\\?' in its path: name another output_dir"):
        run(tmp_path / "a?b", 4)


def test_another_seed_is_another_search(complete_run, tmp_path):
    assert set(names(run(tmp_path, 20, seed=1))) != set(names(complete_run))


def test_all_sub_networks_of_a_small_space_are_tried():
    space = SearchSpace(heads=(2,), neurons=(96,), hidden_size=8, head_dim=4, width_mults=(1.0,), depth_mults=(1.0,))
    genomes = GenomeSpace.of(space)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    evolve(study, make_evolution(genomes, population_size=4), score, num_evaluations=100)
    assert len(set(names(study))) == genomes.count() == 2 * 3


def test_candidates_must_beat_complete_results_of_earlier_generations_that_cost_no_more():
    seen = []

    def evaluate(subnets, to_beat):
        seen.append(dict(zip(subnets, to_beat, strict=True)))
        return [Score(quality(subnet), stopped=len(seen) == 2) for subnet in subnets]

    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    evolve(study, make_evolution(population_size=8), evaluate, num_evaluations=24)
    assert set(seen[0].values()) == {float("-inf")}
    for generation in seen[1:]:
        for subnet, limit in generation.items():
            own = costs(subnet)
            cheaper = [quality(other) for other in seen[0] if all(costs(other)[goal] <= own[goal] for goal in GOALS)]
            assert limit == max(cheaper, default=float("-inf"))


def test_the_search_learns():
    """On the made-up score its hypervolume exceeds that of a single generation completed by random genomes."""

    def area(rows):
        front = pareto_rows(rows, ("macs",))
        return hypervolume([(row["score"], row["macs"]) for row in front], reference=(0, SPACE.num_macs(SPACE.full)))

    for seed in range(3):
        learnt, random = (optuna.create_study(directions=["maximize", "minimize", "minimize"]) for _ in range(2))
        evolve(learnt, make_evolution(seed=seed, population_size=20), score, num_evaluations=200)
        evolve(random, make_evolution(seed=seed, population_size=200), score, num_evaluations=200)
        assert area(read_rows(learnt)) > area(read_rows(random))


@pytest.mark.parametrize("damage", [lambda data: b"not a database" * 100, lambda data: data[: len(data) // 2]])
def test_a_damaged_database_is_reported_in_one_line(tmp_path, damage):
    run(tmp_path, 5)
    path = tmp_path / STUDY_FILE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DynabertError, match="study.db: damaged, or not the database of a search: pass overwrite=True"):
        open_study(tmp_path, {"seed": 0}, goals=GOALS)


def test_a_search_with_other_settings_is_refused_with_the_difference(tmp_path):
    open_study(tmp_path, {"weights": "abc", "goals": ["macs"]}, goals=["macs"])
    with pytest.raises(UsageError, match="a search with weights = abc, this one has def: name another output_dir"):
        open_study(tmp_path, {"weights": "def", "goals": ["macs"]}, goals=["macs"])
    with pytest.raises(UsageError, match="a search with goals = macs, this one has macs params"):
        open_study(tmp_path, {"weights": "abc", "goals": ["macs", "params"]}, goals=["macs", "params"])


def test_a_score_that_is_not_finite_ends_the_search(tmp_path):
    def broken(subnets, to_beat):
        return [Score(math.nan, stopped=False) for _ in subnets]

    with pytest.raises(ModelError, match="has the score nan"):
        run(tmp_path, 20, broken)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_values SET value = value + 1 WHERE trial_id = 3",
        "UPDATE trial_user_attributes SET value_json = '0.25' WHERE trial_id = 3 AND key = 'score'",
        "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 3 AND key = 'score'",
        "UPDATE trial_user_attributes SET key = 'scora' WHERE trial_id = 3 AND key = 'score'",
        "UPDATE trial_params SET param_value = 3 - param_value WHERE trial_id = 3 AND param_name = 'layer0_heads'",
        "UPDATE trial_params SET param_name = 'x' WHERE trial_id = 3 AND param_name = 'layer0_heads'",
        "UPDATE trial_params SET param_value = 0 WHERE trial_id = 3 AND param_name LIKE '%kept'",
        "UPDATE trial_params SET distribution_json = '[]' WHERE trial_id = 3",
    ],
)
def test_an_altered_trial_is_detected(tmp_path, change):
    """The database stores every result twice."""
    run(tmp_path, 5)
    check_genomes(tmp_path, open_study(tmp_path, {"seed": 0}, goals=GOALS), make_evolution().space)
    with closing(sqlite3.connect(tmp_path / STUDY_FILE)) as database:
        assert database.execute(change).rowcount
        database.commit()
    with pytest.raises(DynabertError, match=r"study\.db: damaged, or not the database of a search"):
        check_genomes(tmp_path, open_study(tmp_path, {"seed": 0}, goals=GOALS), make_evolution().space)
