"""Behavioural cloning."""

import copy
import math

import numpy as np
import pytest
import torch

from Algorithm.BehaviouralCloning import BehaviouralCloning, DAgger
from Algorithm.Config import CloningConfig, DAggerConfig
from Algorithm.Losses import distillation_kl
from Algorithm.Utils import (
    Priorities,
)
from tests.Algorithm.trainers import on_devices
from tests.helpers import DeviceWorld, student_for


def test_a_schedule_of_the_whole_phase_reaches_its_ends(envs, task, statistics, dataset):
    config = CloningConfig(optimization_steps=200, minibatch_size=4, mode_alpha="linear", learning_rate_end=1e-6)
    trainer = BehaviouralCloning(student_for(envs, task, statistics, "State"), dataset.fields, config, 0)
    trainer.start()
    first = trainer.step(1)
    assert first["buffer/alpha"] == pytest.approx(0.2)
    assert first["buffer/beta"] == pytest.approx(0.4)
    while trainer.optimization_steps < 200:
        last = trainer.step(200)
    assert last["buffer/alpha"] == pytest.approx(0.6)
    assert last["buffer/beta"] == pytest.approx(1.0)
    assert trainer.learner.optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize("loss_type", ["NLL", "KL"])
def test_the_loss_falls_and_five_episodes_are_learned_by_heart(envs, task, statistics, teacher, dataset, loss_type):
    config = CloningConfig(optimization_steps=2000, loss_type=loss_type, learning_rate=3e-3)
    trainer = BehaviouralCloning(student_for(envs, task, statistics, "State"), dataset.fields, config, 0)
    trainer.start()
    first = trainer.step(100)
    while trainer.optimization_steps < 2000:
        last = trainer.step(2000)
    assert last["training/loss"] < first["training/loss"] - 1
    assert last["training/action_accuracy"] > 0.99


@pytest.mark.parametrize("mode", ["State", "ImpaalaSmall", "ImpaalaMid", "ImpaalaBig"])
def test_an_update_changes_every_kind_of_student(envs, task, statistics, dataset, mode):
    student = student_for(envs, task, statistics, mode)
    before = {name: value.clone() for name, value in student.named_parameters()}
    trainer = BehaviouralCloning(student, dataset.fields, CloningConfig(optimization_steps=2, minibatch_size=4), 0)
    trainer.start()
    assert math.isfinite(trainer.step(2)["training/loss"])
    unchanged = {name for name, value in student.named_parameters() if torch.equal(value, before[name])}
    assert all(name.startswith("critic") for name in unchanged)


def test_a_student_learns_to_predict_the_hidden_state(envs, task, statistics, dataset):
    student = student_for(envs, task, statistics, predicts=True)
    config = CloningConfig(optimization_steps=60, minibatch_size=16, hidden_state=1.0)
    trainer = BehaviouralCloning(student, dataset.fields, config, 0)
    trainer.start()
    first = trainer.step(2)["training/hidden_state_error"]
    trainer.step(38)
    assert trainer.step(20)["training/hidden_state_error"] < 0.5 * first
    obs, _ = trainer.samples.gather(np.arange(4))
    state = torch.from_numpy(dataset.fields["state"][:4, 17:])
    assert torch.equal(obs["State"][:, 17:], state)
    errors = student(obs)[2]
    predicted = student.predictor(student.features(obs)) * student.predicted_std + student.predicted_mean
    assert torch.allclose(errors, ((predicted - state) / student.predicted_std).square(), atol=1e-4)
    assert student.inputs == ("PartialState", "Frame")  # acting needs no state
    without = student_for(envs, task, statistics)
    assert without(obs)[2] is None


def test_samples_are_stacked_as_the_environment_would(envs, task, statistics, dataset):
    trainer = BehaviouralCloning(student_for(envs, task, statistics), dataset.fields, CloningConfig(), 0)
    obs, teacher = trainer.samples.gather(np.array([0, 3, 100, 101, 499]))
    frame = dataset.fields["frame"]
    for stack, rows in zip(
        obs["Frame"], ([0, 0, 0, 0], [0, 0, 1, 3], [100] * 4, [100, 100, 100, 101], [493, 495, 497, 499])
    ):
        np.testing.assert_array_equal(stack, frame[rows])
    np.testing.assert_array_equal(obs["PartialState"][4], dataset.fields["proprioception"][499])
    np.testing.assert_array_equal(teacher.mean[4], dataset.fields["mean"][499])


def test_priorities_are_the_losses_of_the_samples_just_trained_on(envs, task, statistics, dataset):
    config = CloningConfig(alpha=0.6, loss_type="KL", minibatch_size=8)
    trainer = BehaviouralCloning(student_for(envs, task, statistics), dataset.fields, config, 0)
    trainer.start()
    before = copy.deepcopy(trainer.student)
    trainer.update()
    trained = np.flatnonzero(trainer.priorities.error)
    assert 1 < len(trained) <= 8
    obs, teacher = trainer.samples.gather(trained)
    with torch.no_grad():
        errors = distillation_kl(teacher, before.distribution(obs))
    np.testing.assert_allclose(trainer.priorities.error[trained], errors, rtol=1e-3)


def dagger(envs, task, statistics, teacher, dataset, folder, **settings):
    settings = {"optimization_steps": 8, "rollout_updates": 4, "rollout_samples": 150, "minibatch_size": 8, **settings}
    student = student_for(envs, task, statistics)
    return DAgger(
        student,
        dataset.fields,
        DAggerConfig(**settings),
        800_000,
        world=envs,
        teacher=teacher,
        priorities=Priorities(len(dataset), 0.0, 1.0).state_dict(),
        folder=folder,
    )


def test_dagger_labels_are_the_teachers_own_output_on_the_students_states(
    envs, task, statistics, teacher, dataset, tmp_path
):
    trainer = dagger(envs, task, statistics, teacher, dataset, tmp_path / "aggregated")
    trainer.start()
    before = copy.deepcopy(trainer.student)
    stats = trainer.step(100)
    assert trainer.optimization_steps == 4
    assert trainer.samples_collected == 700  # two whole episodes were added
    assert math.isfinite(stats["training/episode_return"])
    added = np.arange(500, 700)
    obs, labels = trainer.samples.gather(added)
    state = torch.from_numpy(np.load(tmp_path / "aggregated" / "state.npy"))
    expected = teacher.distribution({"State": state})
    torch.testing.assert_close(labels.mean, expected.mean)
    torch.testing.assert_close(labels.log_std, expected.log_std)
    with torch.no_grad():
        taken = before.distribution(obs)
    np.testing.assert_allclose(
        np.load(tmp_path / "aggregated" / "action.npy"), taken.action(taken.mean), rtol=1e-3, atol=1e-3
    )
    seeds = np.load(tmp_path / "aggregated" / "seed.npy")
    assert sorted(set(seeds.tolist())) == [800_000, 800_001]
    trainer.step(100)
    seeds = np.load(tmp_path / "aggregated" / "seed.npy")
    assert sorted(set(seeds.tolist())) == [800_000, 800_001, 800_002, 800_003]


@on_devices
def test_dagger_in_a_world_on_a_device_adds_the_same_samples(
    envs, task, statistics, teacher, dataset, tmp_path, device
):
    here = dagger(envs, task, statistics, teacher, dataset, tmp_path / "here")
    there = dagger(DeviceWorld(envs, device), task, statistics, teacher, dataset, tmp_path / "there")
    for trainer in (here, there):
        trainer.start()
        trainer.aggregate()
    added = np.arange(500, 700)
    (obs, labels), (same, same_labels) = here.samples.gather(added), there.samples.gather(added)
    assert all(torch.equal(obs[key], same[key]) for key in obs)
    assert torch.equal(labels.mean, same_labels.mean)
    np.testing.assert_array_equal(here.priorities.error, there.priorities.error)
    for file in (tmp_path / "here").glob("*.npy"):
        assert file.read_bytes() == (tmp_path / "there" / file.name).read_bytes()


def test_dagger_lets_the_teacher_act_as_often_as_beta_mix_says(envs, task, statistics, teacher, dataset, tmp_path):
    trainer = dagger(envs, task, statistics, teacher, dataset, tmp_path / "aggregated", beta_mix=1.0)
    obs = {key: values[:1].repeat_interleave(400, 0) for key, values in envs.reset([1, 2, 3]).items()}
    obs["Frame"] = obs["Frame"][:, None].repeat_interleave(4, 1)
    expected = teacher.act(obs)
    np.testing.assert_allclose(trainer.act(obs)[0], expected)
    trainer.learner.updates = 4  # halfway
    share = (np.abs(trainer.act(obs)[0].numpy() - expected) < 1e-6).all(-1).mean()
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("sampling", ["classic", "balanced"])
def test_dynamic_alpha_and_sampling(envs, task, statistics, teacher, dataset, tmp_path, sampling):
    settings = {"mode_alpha": "dynamic_mean", "sampling": sampling}
    trainer = dagger(envs, task, statistics, teacher, dataset, tmp_path / "aggregated", **settings)
    alphas = []
    dynamic_alpha = trainer.priorities.dynamic_alpha
    trainer.priorities.dynamic_alpha = lambda statistic: alphas.append(dynamic_alpha(statistic)) or alphas[-1]
    trainer.start()
    stats = trainer.step(100)
    new = trainer.priorities.error[trainer.priorities.old :]
    assert len(new) == 200
    assert stats["buffer/alpha"] == alphas[-1]
    assert 0 < alphas[-1] <= 0.6
    assert stats["buffer/new_samples"] == 200
    if sampling == "balanced":
        assert stats["buffer/new_share"] == 0.5


def test_a_resumed_run_equals_an_unbroken_one(envs, task, statistics, teacher, dataset, tmp_path):
    def run(folder, make, cut):
        trainer = make(folder)
        trainer.start()
        stats = [trainer.step(2) for _ in range(2)]
        if cut:
            state = copy.deepcopy(trainer.state_dict())
            trainer.step(100)  # is forgotten
            torch.manual_seed(123)
            trainer = make(folder)
            trainer.load_state_dict(state)
        while trainer.optimization_steps < 8:
            stats.append(trainer.step(100))
        timeless = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in stats]
        return str(timeless), trainer.student.state_dict()

    def dagger_in(folder):
        return dagger(envs, task, statistics, teacher, dataset, tmp_path / folder, mode_alpha="dynamic_max")

    def cloning(folder):
        config = CloningConfig(optimization_steps=8, minibatch_size=8, alpha=0.6, augment=("noise=2", "shift=2"))
        return BehaviouralCloning(student_for(envs, task, statistics), dataset.fields, config, 700_000)

    def recurrent(folder):
        config = CloningConfig(optimization_steps=8, minibatch_size=8, window=4)
        student = student_for(envs, task, statistics, memory="gru")
        return BehaviouralCloning(student, dataset.fields, config, 700_000)

    for make in (cloning, dagger_in, recurrent):
        (stats, weights), (again, same) = run(f"{make.__name__}1", make, False), run(f"{make.__name__}2", make, True)
        assert stats == again
        assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dagger_steps_and_resumes_on_cuda(envs, task, statistics, teacher, dataset, tmp_path):
    student = student_for(envs, task, statistics).to("cuda")
    student.precision = "bf16"
    config = DAggerConfig(
        optimization_steps=8, rollout_updates=4, rollout_samples=150, alpha=0.6, augment=("shift=2", "noise=2")
    )

    def build():
        return DAgger(
            student,
            dataset.fields,
            config,
            800_000,
            world=envs,
            teacher=teacher.to("cuda"),
            priorities=Priorities(len(dataset), 0.0, 1.0).state_dict(),
            folder=tmp_path / "aggregated",
        )

    trainer = build()
    trainer.start()
    trainer.step(100)
    state = copy.deepcopy(trainer.state_dict())
    after = trainer.step(100)
    assert math.isfinite(after["training/loss"])
    obs, labels = trainer.samples.gather(np.arange(config.minibatch_size))
    batch = {"mean": labels.mean, "log_std": labels.log_std, "weights": torch.ones_like(labels.mean[:, 0])} | obs
    by_kernels = trainer.learner._gradients(**batch)
    torch.testing.assert_close(trainer.learner._graphed[False](**batch), by_kernels, rtol=0.05, atol=1e-2)
    trainer = build()
    trainer.load_state_dict(state)
    assert trainer.step(100)["training/loss"] == pytest.approx(after["training/loss"], rel=0.05)
