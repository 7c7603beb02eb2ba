import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import RandomSampler

from experiments.data.folder import load_folder
from experiments.networks.model import ModelError, new_classifier
from experiments.storage import CheckpointError, load_checkpoint
from experiments.study.jobs import number_of_jobs
from experiments.training.batches import Batches, cut
from experiments.training.device import Compute, DeviceError, resolve_compute, share_cores
from experiments.training.memory import NoRoomError
from experiments.training.optimization import make_optimizer, make_scheduler
from experiments.training.order import epoch_seed
from experiments.training.photos import Photos
from experiments.training.recipe import Recipe
from experiments.training.scoring import Score, score
from experiments.training.steps import Stepper
from experiments.training.trainer import Progress, Trainer
from lca_fused.backbones import small_resnet
from lca_fused.decision import Decision
from lca_fused.explain import explain
from lca_fused.gallery import Enrolled, Gallery
from lca_fused.loss import MaxEntropyLoss
from lca_fused.prediction import Prepared, predictions_of
from lca_fused.preprocessing import Preprocessing
from tests.products import write_photos

RECIPE = Recipe(epochs=3, batch_size=6, image_size=32)
CPU = Compute(torch.device("cpu"), torch.float32)
PREPROCESSING = Preprocessing(image_size=RECIPE.image_size)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_photos(tmp_path_factory.mktemp("products") / "photos")
    return load_folder(root, validation_fraction=0.3, train_repeats=2)


@pytest.fixture(scope="module")
def photos(dataset):
    return Photos.load(dataset, RECIPE, PREPROCESSING)


def test_photos_are_scored_as_a_stored_classifier_sees_them(dataset):
    preprocessing = Preprocessing(image_size=16, interpolation="bicubic")
    photos = Photos.load(dataset, RECIPE, preprocessing)
    see = Prepared(preprocessing)
    for split, scored in ((dataset.test, photos.test), (dataset.validation, photos.validation)):
        for number, sample in enumerate(split):
            assert torch.equal(scored[number][0], see(sample.path))


def make_trainer(checkpoint: Path, recipe: Recipe = RECIPE, head: str = "lca") -> Trainer:
    torch.manual_seed(0)
    model = new_classifier(small_resnet(), head, 3, recipe.image_size)
    return Trainer(model, nn.CrossEntropyLoss(), recipe, CPU, seed=0, checkpoint=checkpoint)


def make_stepper(recipe: Recipe = RECIPE, compute: Compute = CPU, **options) -> Stepper:
    torch.manual_seed(0)
    model = new_classifier(small_resnet(), "lca", 3, recipe.image_size)
    return Stepper(model, nn.CrossEntropyLoss(), recipe, compute, steps=10, **options)


def weights_of(trainer: Trainer | Stepper) -> dict[str, torch.Tensor]:
    return trainer.model.state_dict()


class StoppedError(Exception):
    pass


def stop_after(trainer: Trainer, epochs: int, monkeypatch) -> None:
    save = trainer._save

    def save_then_stop(stepper):
        save(stepper)
        if trainer.progress.epoch == epochs:
            raise StoppedError

    monkeypatch.setattr(trainer, "_save", save_then_stop)


VARIANTS = {
    "plain": {},
    "moving average": {"ema_decay": 0.9},
    "accumulated, its last step uneven": {"accumulate": 4, "batch_size": 7},
    "balanced": {"balanced": True},
    "patient": {"patience": 2, "ema_decay": 0.5},
    "BatchNorm learns": {"freeze_batch_norm": False, "accumulate": 2},
    "all": {"balanced": True, "accumulate": 3, "ema_decay": 0.9, "patience": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_interrupted_run_ends_bitwise_like_an_uninterrupted_one(
    photos, tmp_path, monkeypatch, changes
):
    recipe = dataclasses.replace(RECIPE, **changes)
    whole = make_trainer(tmp_path / "whole.pt", recipe)
    whole.fit(photos.train(0), photos.validation)

    stopped = make_trainer(tmp_path / "stopped.pt", recipe)
    stop_after(stopped, 2, monkeypatch)
    with pytest.raises(StoppedError):
        stopped.fit(photos.train(0), photos.validation)
    resumed = make_trainer(tmp_path / "stopped.pt", recipe)
    resumed.fit(photos.train(0), photos.validation)

    assert resumed.progress.history == whole.progress.history
    for key, value in weights_of(whole).items():
        assert torch.equal(value, weights_of(resumed)[key]), key


def test_same_seed_same_weights_whatever_the_number_of_workers(photos, tmp_path):
    alone, helped = make_trainer(tmp_path / "a.pt"), make_trainer(tmp_path / "b.pt")
    helped.workers = 2
    for trainer in (alone, helped):
        trainer.fit(photos.train(0), photos.validation)
    assert alone.progress.history == helped.progress.history


def scripted_scores(monkeypatch, accuracies):
    scores = iter([Score(accuracy, 1.0, torch.empty(0)) for accuracy in accuracies])
    monkeypatch.setattr("experiments.training.trainer.score", lambda *_: next(scores))


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.9, 0.5], 2), ([0.9, 0.2, 0.9], 3), ([0.9, 0.9, 0.2], 2), ([0.0, 0.0, 0.0], 3)],
)
def test_best_epoch_has_the_highest_validation_accuracy_the_later_one_of_a_tie(
    photos, tmp_path, monkeypatch, accuracies, best
):
    trainer = make_trainer(tmp_path / "c.pt")
    scripted_scores(monkeypatch, accuracies)
    kept = {}
    finish = trainer._finish_epoch

    def remember(*arguments):
        finish(*arguments)
        kept[trainer.progress.epoch] = {k: v.clone() for k, v in weights_of(trainer).items()}

    monkeypatch.setattr(trainer, "_finish_epoch", remember)
    assert trainer.fit(photos.train(0), photos.validation).best_epoch == best
    for key, value in kept[best].items():
        assert torch.equal(value, weights_of(trainer)[key]), key


def test_weights_from_before_stay_where_no_epoch_is_better(photos, tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path / "c.pt", dataclasses.replace(RECIPE, epochs=2))
    start = {key: value.clone() for key, value in weights_of(trainer).items()}
    history = [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}]
    before = Progress(2, 1, (0.9, 1), start, history)
    options = {"seed": 0, "checkpoint": trainer.checkpoint, "before": before}
    trainer = Trainer(trainer.model, trainer.loss, trainer.recipe, CPU, **options)
    scripted_scores(monkeypatch, [0.8, 0.85])
    progress = trainer.fit(photos.train(0), photos.validation)
    assert (progress.epoch, progress.best_epoch, progress.best_rank) == (4, 1, (0.9, 0))
    assert [record["epoch"] for record in progress.history] == [1, 2, 3, 4]
    assert all(torch.equal(value, start[key]) for key, value in weights_of(trainer).items())
    assert Progress(1, 1, history=history[:1]).after(before).best_epoch == 3


@pytest.mark.parametrize("patience", [0, 1])
def test_without_validation_photos_it_trains_to_the_end_and_keeps_that(photos, tmp_path, patience):
    recipe = dataclasses.replace(RECIPE, patience=patience)
    progress = make_trainer(tmp_path / "c.pt", recipe).fit(photos.train(0), None)
    assert progress.best_epoch == progress.epoch == 3


def test_training_lowers_the_loss_and_learns_the_products(photos, tmp_path):
    recipe = dataclasses.replace(
        RECIPE, epochs=8, backbone_lr=0.05, head_lr=0.1, freeze_batch_norm=False
    )
    trainer = make_trainer(tmp_path / "c.pt", recipe, head="gap")
    progress = trainer.fit(photos.train(0), photos.validation)
    assert progress.history[-1]["train_loss"] < progress.history[0]["train_loss"]
    assert trainer.score(photos.test).accuracy > 0.5  # chance is 1/3


def test_frozen_batch_norm_keeps_its_statistics(photos, tmp_path):
    statistics = {}
    for freeze in (True, False):
        trainer = make_trainer(
            tmp_path / f"{freeze}.pt", dataclasses.replace(RECIPE, freeze_batch_norm=freeze)
        )
        trainer.fit(photos.train(0), photos.validation)
        statistics[freeze] = weights_of(trainer)["backbone.1.running_mean"]
    assert not statistics[True].any(), "a fresh BatchNorm's running mean is 0"
    assert statistics[False].any()


def test_biases_and_normalisation_are_not_decayed():
    stepper = make_stepper()
    for group in stepper.optimizer.param_groups:
        matrices = all(parameter.dim() > 1 for parameter in group["params"])
        assert group["weight_decay"] == (RECIPE.weight_decay if matrices else 0)
    counted = sum(len(group["params"]) for group in stepper.optimizer.param_groups)
    assert counted == len(list(stepper.model.parameters()))


def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_nothing(photos, tmp_path, monkeypatch):
    rates = []
    update = Stepper.update

    def noting(stepper):
        rates.append(stepper.optimizer.param_groups[-1]["lr"])
        update(stepper)

    monkeypatch.setattr(Stepper, "update", noting)
    make_trainer(tmp_path / "c.pt").fit(photos.train(0), None)
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(RECIPE.head_lr, rel=0.05)
    assert 0 < peak < len(rates) / 2
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.1 * RECIPE.head_lr


def rates_of(recipe: Recipe, steps: int) -> list[float]:
    """The head's learning rate in each step."""
    optimizer = make_optimizer(new_classifier(small_resnet(), "lca", 3, 32), recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[-1]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(("warmup", "steps"), [(0.5, 2), (0.25, 4), (0.2, 5), (0.1, 10)])
def test_a_warm_up_of_one_step_leaves_the_decay(warmup, steps):
    rates = rates_of(dataclasses.replace(RECIPE, warmup=warmup), steps)
    assert rates == sorted(rates, reverse=True)
    assert RECIPE.head_lr / 2 <= rates[0] <= RECIPE.head_lr
    assert rates[-1] < 0.001 * RECIPE.head_lr


@pytest.mark.parametrize("warmup", [0.0, 0.2])
def test_a_run_of_one_step_is_refused(photos, tmp_path, warmup):
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=100, warmup=warmup)
    with pytest.raises(ModelError, match=r"one step.*--recipe\.epochs"):
        make_trainer(tmp_path / "c.pt", recipe).fit(photos.train(0), None)


def losses(trainer: Trainer) -> list[float]:
    return [record["train_loss"] for record in trainer.progress.history]


@pytest.mark.parametrize("batch_size", [6, 7])  # of 24 photos 7 leave 3, fewer than 4 parts
def test_accumulated_steps_are_those_of_the_whole_batch(photos, tmp_path, batch_size):
    recipe = dataclasses.replace(RECIPE, batch_size=batch_size)
    at_once = make_trainer(tmp_path / "a.pt", recipe)
    in_parts = make_trainer(tmp_path / "b.pt", dataclasses.replace(recipe, accumulate=4))
    for trainer in (at_once, in_parts):
        trainer.fit(photos.train(0), photos.validation)
    assert losses(in_parts) == pytest.approx(losses(at_once), rel=1e-5)
    for key, value in weights_of(at_once).items():
        torch.testing.assert_close(weights_of(in_parts)[key], value, rtol=1e-4, atol=1e-6)


OUT_OF_GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
OUT_OF_CPU = RuntimeError(
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)


def hold_at_most(model: nn.Module, photos: int, error: Exception, *, in_backward: bool) -> None:
    """Let a model run out of memory where it gets more photos at a time."""

    def fail(*_):
        raise error

    def forward(_, inputs, output):
        if len(inputs[0]) > photos:
            if not in_backward or not torch.is_grad_enabled():
                fail()
            inputs[0].requires_grad_().register_hook(fail)  # when all other gradients are there

    model.register_forward_hook(forward)
    if in_backward:
        model.register_forward_pre_hook(lambda _, inputs: inputs[0].requires_grad_())


@pytest.mark.parametrize(
    ("error", "in_backward"),
    [(OUT_OF_GPU, True), (OUT_OF_CPU, False), (MemoryError(), False)],
    ids=["GPU, backward", "CPU", "Python"],
)
def test_memory_that_runs_out_halves_what_is_computed_at_a_time_and_changes_nothing_else(
    photos, tmp_path, caplog, error, in_backward
):
    caplog.set_level("INFO")
    asked, backed_off = (
        make_trainer(tmp_path / f"{parts}.pt", dataclasses.replace(RECIPE, accumulate=parts))
        for parts in (4, 1)
    )
    for trainer in (asked, backed_off):
        linear = trainer.model.classifier
        trainer.model.classifier = nn.Sequential(nn.Dropout(0.5), linear)  # draws in every step
    hold_at_most(backed_off.model, 2, error, in_backward=in_backward)
    for trainer in (asked, backed_off):
        trainer.recipe = dataclasses.replace(trainer.recipe, batch_size=8)
        trainer.fit(photos.train(0), photos.validation)
    for key, value in weights_of(asked).items():
        assert torch.equal(value, weights_of(backed_off)[key]), key
    assert losses(backed_off) == pytest.approx(losses(asked), rel=1e-6)
    training, scoring = caplog.messages
    assert "training takes 2 photos at a time from now on rather than 8; steps are" in training
    assert "scoring takes 2 photos at a time from now on rather than" in scoring


def test_memory_that_does_not_hold_one_photo_is_an_error(photos, tmp_path):
    trainer = make_trainer(tmp_path / "c.pt")
    hold_at_most(trainer.model, 0, OUT_OF_GPU, in_backward=False)
    with pytest.raises(NoRoomError, match="Tried to allocate 2 GiB"):
        trainer.fit(photos.train(0), None)


def random_parts(count: int, accumulate: int):
    torch.manual_seed(1)
    images, labels = torch.randn(count, 3, 32, 32), torch.randint(3, (count,))
    for part in cut(range(count), count, accumulate=accumulate):
        chosen = torch.tensor(part.items)
        yield part, images[chosen], labels[chosen]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16], ids=str)
def test_accumulated_step_in_16_bit_is_the_float32_one_to_its_precision(precision):
    steppers = [make_stepper(), make_stepper(compute=Compute(CPU.device, precision))]
    before = {key: value.clone() for key, value in steppers[0].model.state_dict().items()}
    for stepper in steppers:
        stepper.start_training()
        for part, images, labels in random_parts(8, accumulate=3):
            stepper.backward(images, labels, part)
        stepper.update()
    moves = [
        torch.cat([(value - before[key]).flatten() for key, value in model.named_parameters()])
        for model in (stepper.model for stepper in steppers)
    ]
    assert moves[0].norm() > 0
    assert (moves[1] - moves[0]).norm() < 0.05 * moves[0].norm()


@pytest.mark.filterwarnings("error:Detected call of .lr_scheduler")
def test_float16_step_that_overflowed_is_left_out_and_the_scale_lowered():
    stepper = make_stepper(compute=Compute(CPU.device, torch.float16))
    before = {key: value.clone() for key, value in stepper.model.state_dict().items()}
    scale = stepper.scaler.get_scale()
    stepper.start_training()
    for part, images, labels in random_parts(8, accumulate=2):
        stepper.backward(images, labels, part)
    stepper.model.classifier.bias.grad.fill_(torch.inf)
    stepper.update()
    assert all(torch.equal(value, before[key]) for key, value in weights_of(stepper).items())
    assert stepper.scaler.get_scale() == scale / 2
    assert stepper.scheduler.last_epoch == 0, "the schedule waits"
    for part, images, labels in random_parts(8, accumulate=2):
        stepper.backward(images, labels, part)
    stepper.update()
    assert stepper.scheduler.last_epoch == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patience", "accuracies", "epochs"),
    [
        (2, [0.5, 0.4, 0.3, 0.9, 0.9], 3),
        (2, [0.5, 0.4, 0.6, 0.1, 0.2], 5),
        (1, [0.5, 0.5, 0.5, 0.5, 0.4], 5),  # a tie counts as better
        (0, [0.5, 0.4, 0.3, 0.2, 0.1], 5),
        (3, [0.5, 0.4, 0.3, 0.2, 0.1], 4),
    ],
)
def test_patience_ends_the_run_after_so_many_epochs_without_a_better_one(
    photos, tmp_path, monkeypatch, patience, accuracies, epochs
):
    recipe = dataclasses.replace(RECIPE, epochs=5, patience=patience)
    scripted_scores(monkeypatch, accuracies)
    trainer = make_trainer(tmp_path / "c.pt", recipe)
    assert trainer.fit(photos.train(0), photos.validation).epoch == epochs
    # Started again it is still finished: the scores are used up but for those it never came to.
    again = make_trainer(tmp_path / "c.pt", recipe)
    assert again.fit(photos.train(0), photos.validation).epoch == epochs
    assert again.progress.history == trainer.progress.history


def test_balanced_training_sees_rare_products_as_often_as_others(dataset, tmp_path, monkeypatch):
    rare = dataclasses.replace(
        dataset,
        train=tuple(
            sample
            for number, sample in enumerate(dataset.train)
            if sample.label != 0 or number == 0  # of the first product one photo is left
        ),
    )
    photos = Photos.load(rare, RECIPE, PREPROCESSING)
    seen, hashes = [], []
    backward = Stepper.backward

    def noting(stepper, images, labels, part):
        seen.extend(labels.tolist())
        hashes.extend(image.sum().item() for image in images[labels == 0])
        return backward(stepper, images, labels, part)

    monkeypatch.setattr(Stepper, "backward", noting)
    recipe = dataclasses.replace(RECIPE, epochs=1, balanced=True)
    make_trainer(tmp_path / "c.pt", recipe).fit(photos.train(0), None)
    counts = [seen.count(label) for label in range(3)]
    assert sum(counts) == len(photos.augmented)
    assert max(counts) - min(counts) <= 1
    assert len(set(hashes)) == len(hashes), "every draw of the one photo is augmented afresh"


def test_seconds_of_every_epoch_are_noted_over_interruptions(photos, tmp_path, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(
        "experiments.training.trainer.time.perf_counter", lambda: float(next(clock))
    )
    trainer = make_trainer(tmp_path / "c.pt")
    stop_after(trainer, 2, monkeypatch)
    with pytest.raises(StoppedError):
        trainer.fit(photos.train(0), photos.validation)
    assert load_checkpoint(tmp_path / "c.pt")["progress"]["epoch_seconds"] == [1.0, 1.0]
    resumed = make_trainer(tmp_path / "c.pt").fit(photos.train(0), photos.validation)
    assert resumed.epoch_seconds == [1.0, 1.0, 1.0]


def test_checkpoint_of_another_run_is_refused_and_kept(photos, tmp_path):
    make_trainer(tmp_path / "c.pt").fit(photos.train(0), photos.validation)
    before = (tmp_path / "c.pt").read_bytes()
    other = make_trainer(tmp_path / "c.pt", head="gap")
    with pytest.raises(CheckpointError, match=r"c\.pt is not a checkpoint of this run.*delete it"):
        other.fit(photos.train(0), photos.validation)
    assert (tmp_path / "c.pt").read_bytes() == before


def test_epochs_come_in_the_order_that_stored_results_were_made_with(photos):
    generator = torch.Generator().manual_seed(epoch_seed(7, 2))
    assert epoch_seed(7, 2) == 7 * 1_000_003 + 2
    expected = list(RandomSampler(photos.augmented, generator=generator))
    batches = Batches(photos.augmented, RECIPE, seed=7)
    drawn = [item for part, _, _ in batches.epoch(2) for item in part.items]
    assert drawn == expected


class OnHost(torch.Tensor):
    """What has left the device by `cpu()`, and all that comes of it."""


class NoFloat64(TorchDispatchMode):
    """Refuses float64 as Apple's GPUs do, but in what has left the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        left = any(isinstance(value, OnHost) for value in tree_leaves((args, kwargs)))
        made = [value for value in tree_leaves(result) if isinstance(value, torch.Tensor)]
        if not left and any(value.dtype == torch.float64 for value in made):
            raise TypeError(f"{func} makes float64, which this device does not have")
        return result


@pytest.fixture
def without_float64(monkeypatch):
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: cpu(tensor).as_subclass(OnHost))
    with NoFloat64():
        with pytest.raises(TypeError, match="makes float64"):
            torch.zeros(2).double()
        torch.zeros(2).cpu().double().sum()
        yield


@pytest.mark.parametrize("head", ["lca", "gap", "gem", "rmac"])
def test_training_scoring_and_predictions_make_no_float64_on_the_device(without_float64, head):
    torch.manual_seed(0)
    model = new_classifier(small_resnet(), head, 3, RECIPE.image_size)
    recipe = dataclasses.replace(RECIPE, ema_decay=0.9)
    loss = MaxEntropyLoss()
    stepper = Stepper(model, loss, recipe, CPU, steps=10)
    batches = SimpleNamespace(epoch=lambda _: random_parts(8, accumulate=3))
    assert 0 < stepper.epoch(batches, 0, 0) < 10
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    assert score(stepper.evaluated, [(images, labels)], CPU).top5.shape == (4, 3)
    model.eval()
    if head == "lca":
        assert explain(model, images).positions.shape == (4, 2, 2)
    embedded = model.pool(model.backbone(images)).detach()
    model.set_gallery(Gallery.of({"a": Enrolled(embedded[:2]), "b": Enrolled(embedded[2:])}))
    description = SimpleNamespace(classes=["a", "b"], decision=Decision())
    predictions = predictions_of(model(images), description, 2)
    assert [prediction.name for prediction in predictions] == ["a", "a", "b", "b"]


def test_auto_takes_an_apple_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    apple = Compute(torch.device("mps"), torch.float32)
    assert resolve_compute() == resolve_compute("mps") == apple
    assert number_of_jobs(None, apple, 9) == 1


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "meta", "mps", "xpu"])
def test_device_that_is_not_there_is_refused(name):
    with pytest.raises(DeviceError, match=name):
        resolve_compute(name)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16)],
)
def test_gpus_that_only_emulate_bfloat16_take_float16(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.version, "hip", None)
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability
    )
    assert resolve_compute("cuda:1").precision == precision
    assert asked == [torch.device("cuda:1")], "that GPU, not the first"


def test_torch_and_the_workers_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert [share_cores(CPU, workers) for workers in (None, 0, 1, 9)] == [2, 0, 1, 9]
    assert threads == [2, 4, 3, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    share_cores(CPU)
    assert len(threads) == 4, "the user's own choice stands"


@pytest.mark.parametrize(
    ("cores", "jobs", "shares"),
    [
        (1, 1, (1, 0)),
        (2, 1, (1, 1)),
        (4, 1, (3, 1)),
        (16, 1, (12, 4)),
        (16, 4, (3, 1)),
        (2, 4, (1, 0)),
    ],
)
def test_a_cpu_that_trains_has_all_cores_but_those_that_augmentation_needs(
    monkeypatch, cores, jobs, shares
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    workers = share_cores(CPU, training=True, jobs=jobs)
    assert (*threads, workers) == shares


def test_processes_of_one_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert share_cores(Compute(torch.device("cuda"), torch.bfloat16)) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"warmup": 1.0},
        {"head_lr": 0.0},
        {"accumulate": 0},
        {"accumulate": 17},
        {"patience": -1},
        {"layer_decay": 1.5},
        {"layer_decay": 0.0},
        {"freeze": -1},
    ],
)
def test_recipe_out_of_range_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=rf"recipe.{name} is .*expected"):
        Recipe(**wrong)
