import dataclasses
import json

import pytest
import torch

from benchmarks.memory import highest_sum, peak_extra_bytes
from benchmarks.training import cost, step_cost
from benchmarks.training.step_cost import HEADS
from experiments.networks.model import ModelError
from experiments.networks.weights import WeightsError
from experiments.training.device import Compute
from experiments.training.recipe import Recipe
from tests.products import write_weights

CPU = Compute(torch.device("cpu"), torch.float32)
RECIPE = Recipe(batch_size=4, image_size=32)
FLAGS = ["--backbone", "embedded", "--batch-size", "2", "--image-size", "32", "--rounds", "1"]
FLAGS += ["--device", "cpu", "--precision", "float32"]


def costs(heads=("gap", "lca"), recipe=RECIPE, **options):
    return step_cost.step_costs("embedded", None, heads, recipe, CPU, rounds=1, **options)


def script(monkeypatch, seconds_by_head):
    """Let steps take the seconds given; return the order in which heads had their turns."""
    turns = []
    heads = list(seconds_by_head)
    known = {}

    def timed(step):
        head = known.setdefault(id(step), heads[len(known)] if id(step) not in known else "")
        turns.append(head)
        return seconds_by_head[head].pop(0)

    monkeypatch.setattr(step_cost, "_timed", timed)
    return turns


def test_heads_take_turns_and_none_always_follows_the_same_one(monkeypatch):
    turns = script(monkeypatch, {head: [1.0] * 9 for head in ("gap", "gem", "lca")})
    step_cost.step_costs("embedded", None, ["gap", "gem", "lca"], RECIPE, CPU, rounds=1)
    rounds = [turns[start : start + 3] for start in range(0, len(turns), 3)]
    assert rounds == [["gap", "gem", "lca"], ["gem", "lca", "gap"], ["lca", "gap", "gem"]]


def test_median_and_quartiles_leave_the_first_steps_out(monkeypatch):
    script(monkeypatch, {"gap": [99.0, 99.0, 5.0, 1.0, 2.0, 4.0, 3.0]})
    measured = step_cost.step_costs("embedded", None, ["gap"], RECIPE, CPU, rounds=5)["gap"]
    assert measured.seconds == 3.0
    assert measured.quartiles == (2.0, 4.0)
    assert measured.images_per_second == RECIPE.batch_size / 3.0


def test_ratio_is_taken_round_by_round(monkeypatch):
    # The medians, 3 and 3, would say that both cost the same.
    script(monkeypatch, {"gap": [9.0, 9.0, 1.0, 3.0, 9.0], "lca": [9.0, 9.0, 1.5, 3.0, 18.0]})
    measured = step_cost.step_costs("embedded", None, ["gap", "lca"], RECIPE, CPU, rounds=3)
    assert measured["lca"].ratio(measured["gap"]) == 1.5
    assert measured["lca"].ratio_quartiles(measured["gap"]) == (1.25, 1.75)


def test_a_step_is_a_real_one(monkeypatch):
    steps = []
    cost_of = step_cost._Step.cost

    def keep(step, seconds):
        steps.append(step)
        return cost_of(step, seconds)

    monkeypatch.setattr(step_cost._Step, "cost", keep)
    costs(["lca"])
    (step,) = steps
    before = {name: p.detach().clone() for name, p in step.stepper.model.named_parameters()}
    step()
    for name in ("backbone.0.weight", "lca.weight", "classifier.weight"):
        assert not torch.equal(step.stepper.model.get_parameter(name), before[name]), name


def test_peak_holds_weights_gradients_and_momentum_and_grows_with_the_photos():
    small = costs()
    for measured in small.values():
        assert measured.peak_bytes > 3 * 4 * measured.parameters
    channels = 128
    assert small["lca"].parameters - small["gap"].parameters == channels * (channels + 1)
    large = costs(recipe=dataclasses.replace(RECIPE, batch_size=32))
    in_parts = costs(recipe=dataclasses.replace(RECIPE, batch_size=32, accumulate=8))
    for head in small:
        assert small[head].peak_bytes < in_parts[head].peak_bytes < large[head].peak_bytes


@pytest.mark.parametrize("head", HEADS)
def test_random_backbone_stays_in_range(head, monkeypatch):
    losses = []
    backward = step_cost.Stepper.backward

    def noting(*arguments):
        losses.append(backward(*arguments).item())
        return torch.tensor(losses[-1])

    monkeypatch.setattr(step_cost.Stepper, "backward", noting)
    costs([head], classes=10)
    assert all(0 < loss < 20 for loss in losses)


def test_the_papers_own_head_is_lca_with_its_parameters():
    ours, papers = (HEADS[name](6).double() for name in ("lca", "lca-reference"))
    papers.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(x), papers(x), rtol=1e-12, atol=1e-12)


def test_peak_of_a_call_is_what_it_held_at_a_time():
    mebi = 2**20

    def two_then_one():
        for size in (2, 1):
            torch.empty(size * mebi, dtype=torch.uint8).fill_(1)

    assert 2 * mebi <= peak_extra_bytes(two_then_one, CPU.device) < 2 * mebi + 4096


def _trace(changes):
    return [
        {"name": "[memory]", "ts": time, "args": {"Bytes": change}}
        for time, change in enumerate(changes)
    ]


def test_highest_sum():
    assert highest_sum(_trace([5, -5, 3, 4, -7, 6])) == 7
    assert highest_sum(_trace([-3, 1])) == 0


def test_weights_may_be_given_and_must_fit(tmp_path):
    weights = write_weights(tmp_path / "weights.pt")
    step_cost.step_costs("embedded", weights, ["gap"], RECIPE, CPU, rounds=1)
    with pytest.raises(WeightsError):
        step_cost.step_costs("resnet50", weights, ["gap"], RECIPE, CPU, rounds=1)


def test_photos_too_small_are_refused():
    with pytest.raises(ModelError, match="1x1"):
        costs(recipe=dataclasses.replace(RECIPE, image_size=16))


def test_command_prints_the_table_and_writes_json(tmp_path, capsys):
    weights = write_weights(tmp_path / "weights.pt")
    file = tmp_path / "cost.json"
    arguments = [*FLAGS, "--heads", "gap", "lca", "--json", str(file), "--weights", str(weights)]
    assert cost.main(arguments) == 0
    table = capsys.readouterr().out
    assert "x gap" in table
    assert "| lca " in table
    record = json.loads(file.read_text())
    assert list(record["heads"]) == ["gap", "lca"]
    assert record["heads"]["lca"]["seconds"] > 0
    assert record["settings"]["weights"] == "weights.pt"
    assert str(tmp_path) not in file.read_text(), "folders say nothing about a measurement"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--heads", "nonsense"], r"head is nonsense; expected from gap, "),
        (["--backbone", "nonsense"], "backbone is 'nonsense'; expected timm:NAME, "),
        (["--device", "nonsense"], "device is 'nonsense'"),
        (["--rounds", "0"], "rounds is 0; expected at least 1"),
        (["--batch-size", "0"], "batch_size is 0"),
    ],
)
def test_wrong_options_are_refused(wrong, message, capsys):
    assert cost.main([*FLAGS, *wrong]) == 2
    assert message in capsys.readouterr().err


def test_memory_that_runs_out_is_explained(monkeypatch, capsys):
    def short_of_memory(*_arguments, **_options):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(cost, "step_costs", short_of_memory)
    assert cost.main(FLAGS) == 2
    said = capsys.readouterr().err
    assert "Tried to allocate 2 GiB" in said
    assert "smaller --batch-size" in said
