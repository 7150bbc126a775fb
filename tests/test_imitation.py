"""Online distillation, datasets, behavioural cloning, prioritized replay, DAgger."""

import copy
import errno
import json
import math

import numpy as np
import pytest
import torch
from conftest import student_for

from Algorithm.BehaviouralCloning import BehaviouralCloning, DAgger
from Algorithm.CollectDataset import SampleWriter, collect, collect_dataset
from Algorithm.Config import CloningConfig, DAggerConfig, StudentDistillationConfig, TeacherDistillationConfig
from Algorithm.Losses import distillation_kl, imitation_loss
from Algorithm.StudentTeacher_distillation import StudentDistillation, TeacherDistillation
from Algorithm.Utils import (
    Priorities,
    augment,
    cosine,
    episode_ends,
    find_dataset,
    linear,
    new_share_alpha,
    open_dataset,
    read_samples,
)
from Enviroment.Utils import make_vector_env
from Models.Base_Model import SquashedGaussian
from Models.Files import BadFile
from Models.Utils import FrameStacker

SIZES = {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "epochs": 2}


@pytest.fixture(scope="module")
def env(request):
    from Enviroment.Tasks import TASKS

    env = make_vector_env(TASKS["Pusher"], 3, 1)
    yield env
    env.close()


@pytest.fixture
def dataset(env, teacher, tmp_path):
    """Five episodes."""
    collect_dataset(tmp_path / "dataset_500", env, teacher, 500, 1.0, 0.5, META)
    return open_dataset(tmp_path / "dataset_500")


META = {"task": "Pusher", "teacher_sha256": "0", "render": {"quality": "fast"}}


# Prioritized replay


def prioritized(alpha, beta=0.4, errors=(0.1, 0.4, 1.0, 2.5)):
    priorities = Priorities(len(errors), alpha, beta)
    priorities.update(np.arange(len(errors)), np.array(errors))
    return priorities


def test_sampling_frequencies_are_those_of_the_priorities():
    """Pearson's chi-square, 3 degrees of freedom: 16.3 is exceeded once in a thousand."""
    torch.manual_seed(0)
    priorities = prioritized(0.6)
    expected = (np.array([0.1, 0.4, 1.0, 2.5]) + 1e-6) ** 0.6
    expected *= 20_000 / expected.sum()
    counts = np.bincount(priorities.sample(20_000)[0], minlength=4)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_weights_follow_the_formula():
    priorities = prioritized(0.7, beta=0.5)
    indices, weights = priorities.sample(200)
    p = (np.array([0.1, 0.4, 1.0, 2.5]) + 1e-6) ** 0.7
    p /= p.sum()
    every = (4 * p) ** -0.5
    np.testing.assert_allclose(weights, (every / every.max())[indices])


def test_without_alpha_sampling_is_uniform_and_all_weights_are_one():
    torch.manual_seed(0)
    priorities = prioritized(0.0, beta=0.9)
    indices, weights = priorities.sample(20_000)
    assert (weights == 1).all()
    counts = np.bincount(indices, minlength=4)
    assert ((counts - 5_000) ** 2 / 5_000).sum() < 16.3


def test_what_was_not_trained_on_has_the_largest_priority():
    priorities = Priorities(4, 1.0, 0.4)
    assert len(set(priorities._p)) == 1
    priorities.update(np.array([0, 1]), np.array([3.0, 7.0]))
    np.testing.assert_allclose(priorities._p, [3, 7, 7, 7], rtol=1e-5)
    priorities.add(np.array([0.5]))
    np.testing.assert_allclose(priorities._p, [3, 7, 7, 7, 7], rtol=1e-5)
    priorities.update(np.array([2, 4]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(priorities._p, [3, 7, 1, 7, 0.5], rtol=1e-5)


def test_balanced_batches_are_half_old_half_new_whatever_the_priorities():
    priorities = prioritized(1.0)
    priorities.add(np.array([1e-3, 1e-3]))
    priorities.update(np.array([4, 5]), np.array([1e-3, 2e-3]))
    indices, weights = priorities.sample(64, balanced=True)
    assert (indices >= 4).sum() == 32
    new = np.array([1e-3, 2e-3]) + 1e-6
    np.testing.assert_allclose(weights[32:], ((new[0] / new) ** 0.4)[indices[32:] - 4])


def test_alpha_schedules_on_hand_worked_numbers():
    assert linear(0.2, 0.6, 0.5) == pytest.approx(0.4)
    assert cosine(1.0, 0.0, 0.5) == pytest.approx(0.5)
    # f = 1/5, t = 1/3: the odds of new samples have to double, which r = 16 does at alpha = 1/4.
    assert new_share_alpha(0.2, 16.0) == pytest.approx(0.25)
    alpha = new_share_alpha(0.1, 40.0)
    assert 0.1 * 40**alpha / (0.1 * 40**alpha + 0.9) == pytest.approx(1 / 3)
    assert new_share_alpha(0.01, 2.0) == 0.6  # would need more than 0.6
    assert new_share_alpha(0.2, 1.0) == 0.6
    assert new_share_alpha(0.4, 16.0) == 0.6
    priorities = prioritized(0.0, errors=(1.0, 3.0, 2.0, 2.0))
    priorities.add(np.array([32.0]))
    assert priorities.dynamic_alpha(np.mean) == pytest.approx(0.25)
    priorities.add(np.array([0.0]))  # f = 1/3
    assert priorities.dynamic_alpha(np.max) == 0.6


def test_a_schedule_of_the_whole_phase_reaches_its_ends(env, task, statistics, dataset):
    config = CloningConfig(optimization_steps=200, minibatch_size=4, mode_alpha="linear", learning_rate_end=1e-6)
    trainer = BehaviouralCloning(student_for(env, task, statistics, "State"), dataset.fields, task, config, 0)
    trainer.start()
    first = trainer.step(1)
    assert first["buffer/alpha"] == pytest.approx(0.2)
    assert first["buffer/beta"] == pytest.approx(0.4)
    while trainer.optimization_steps < 200:
        last = trainer.step(200)
    assert last["buffer/alpha"] == pytest.approx(0.6)
    assert last["buffer/beta"] == pytest.approx(1.0)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)


# Losses


def test_errors_are_what_the_losses_exceed_their_smallest_values_by():
    generator = torch.Generator().manual_seed(0)
    scale, shift = torch.full((7,), 2.0), torch.zeros(7)
    teacher = SquashedGaussian(2 * torch.randn(64, 7, generator=generator), torch.full((64, 7), -2.0), scale, shift)
    bounded = teacher.mean.clamp(-3, 3)
    student = SquashedGaussian(
        bounded + torch.randn(64, 7, generator=generator), torch.full((64, 7), -1.0), scale, shift
    )
    perfect = SquashedGaussian(bounded, torch.full((64, 7), -4.0), scale, shift)
    losses, errors = imitation_loss("NLL", teacher, student)
    least, nothing = imitation_loss("NLL", teacher, perfect)
    torch.testing.assert_close(errors, losses - least, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(nothing, torch.zeros(64))
    losses, errors = imitation_loss("KL", teacher, student)
    torch.testing.assert_close(errors, losses)
    torch.testing.assert_close(losses, distillation_kl(teacher, student))


def test_a_saturated_teacher_leaves_loss_and_gradient_finite():
    mean = torch.zeros(1, 7, requires_grad=True)
    scale, shift = torch.full((7,), 2.0), torch.zeros(7)
    student = SquashedGaussian(mean, torch.full((1, 7), -4.0), scale, shift)
    teacher = SquashedGaussian(torch.full((1, 7), 50.0), torch.full((1, 7), 2.0), scale, shift)
    for loss_type in ("NLL", "KL"):
        losses, errors = imitation_loss(loss_type, teacher, student)
        (gradient,) = torch.autograd.grad(losses.sum(), mean)
        assert losses.isfinite().all()
        assert errors.isfinite().all()
        assert gradient.isfinite().all()


# Datasets


def test_a_dataset_holds_what_the_environment_showed_and_the_teacher_said(env, task, teacher, dataset, tmp_path):
    fields = dataset.fields
    assert len(dataset) == 500
    assert fields["seed"].tolist() == np.repeat(np.arange(2000, 2005), 100).tolist()
    assert np.flatnonzero(fields["episode_start"]).tolist() == [0, 100, 200, 300, 400]
    lone = make_vector_env(task, 1, 1)
    obs, _ = lone.reset(seed=[2003])
    for i in range(300, 400):
        np.testing.assert_array_equal(fields["frame"][i], obs["Frame"][0])
        np.testing.assert_array_equal(fields["state"][i], obs["State"][0])
        np.testing.assert_array_equal(fields["proprioception"][i], obs["PartialState"][0])
        obs, reward, *_ = lone.step(fields["action"][i][None])
        assert fields["reward"][i] == reward[0]
    lone.close()
    policy = teacher.distribution({"State": torch.from_numpy(np.array(fields["state"]))})
    np.testing.assert_allclose(fields["mean"], policy.mean, atol=1e-5)
    np.testing.assert_allclose(fields["log_std"], policy.log_std, atol=1e-5)
    noise = (np.arctanh(np.clip(fields["action"] / 2, -0.999999, 0.999999)) - fields["mean"]) / np.exp(
        fields["log_std"]
    )
    assert (np.abs(noise) < 0.6745).mean() == pytest.approx(0.5, abs=0.03)  # a normal distribution's quartiles
    episodes = noise.reshape(5, 100, -1)
    assert np.corrcoef(episodes[:, 1:].ravel(), episodes[:, :-1].ravel())[0, 1] == pytest.approx(0.5, abs=0.08)


def test_a_smaller_dataset_is_a_prefix_and_needs_no_second_collection(env, teacher, dataset, tmp_path):
    folder = tmp_path / "dataset_250"
    assert find_dataset(folder, 250, {"teacher_noise": 1.0}) == dataset.folder
    assert find_dataset(folder, 250, {"teacher_noise": 2.0}) is None
    assert find_dataset(folder, 501, {}) is None
    collect_dataset(folder, env, teacher, 250, 1.0, 0.5, META)
    assert find_dataset(folder, 250, {}) == folder
    smaller, prefix = open_dataset(folder), dataset.prefix(250)
    assert len(smaller) == len(prefix) == 300  # whole episodes
    for name, values in smaller.fields.items():
        np.testing.assert_array_equal(values, prefix.fields[name])


class Cut(Exception):
    pass


def test_a_cut_collection_is_no_dataset_and_goes_on_to_the_same_one(env, teacher, dataset, tmp_path, monkeypatch):
    folder, step, steps = tmp_path / "again", env.step, 0

    def cut(actions):
        nonlocal steps
        steps += 1
        if steps > 150:
            raise Cut
        return step(actions)

    monkeypatch.setattr(env, "step", cut)
    with pytest.raises(Cut):
        collect_dataset(folder, env, teacher, 500, 1.0, 0.5, META)
    assert not folder.exists()
    partial = tmp_path / "again.partial"
    assert json.loads((partial / "meta.json").read_text())["samples"] == 300
    partial.rename(folder)
    with pytest.raises(BadFile, match="cut off"):
        open_dataset(folder)
    folder.rename(partial)
    with (partial / "reward.npy").open("ab") as file:
        file.write(b"cut in the middle of a write")
    steps = -1000
    collect_dataset(folder, env, teacher, 500, 1.0, 0.5, META)
    assert steps == -1000 + 100  # the first round was not run again
    assert not partial.exists()
    for file in dataset.folder.glob("*.npy"):
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_a_write_that_was_cut_leaves_what_was_there(dataset, tmp_path, monkeypatch):
    part = {name: values[:100] for name, values in dataset.fields.items()}
    writer = SampleWriter(tmp_path / "written", {})
    writer.append(part)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(OSError, match="No space"):
        writer.append(part)
    monkeypatch.undo()
    kept = read_samples(tmp_path / "written", 100)
    np.testing.assert_array_equal(kept["frame"], part["frame"])


def test_a_cut_collection_with_other_settings_or_damage_is_not_gone_on_with(env, teacher, dataset, tmp_path):
    folder = tmp_path / "mixed"
    collect_dataset(folder, env, teacher, 300, 0.0, 0.5, META)
    partial = folder.rename(tmp_path / "mixed.partial")
    with pytest.raises(BadFile, match=r"teacher_noise is 0\.0, not 1\.0"):
        collect_dataset(folder, env, teacher, 500, 1.0, 0.5, META)
    collect_dataset(folder, env, teacher, 500, 1.0, 0.5, META, overwrite=True)
    np.testing.assert_array_equal(open_dataset(folder).fields["action"], dataset.fields["action"])
    folder.rename(partial)
    content = bytearray((partial / "action.npy").read_bytes())
    content[1000] ^= 1
    (partial / "action.npy").write_bytes(content)
    with pytest.raises(BadFile, match=r"action\.npy is not what was written"):
        collect_dataset(folder, env, teacher, 500, 1.0, 0.5, META)


@pytest.mark.parametrize("damage", ["truncated", "missing", "meta", "shorter", "reshaped", "version"])
def test_a_damaged_dataset_is_refused(dataset, damage):
    folder = dataset.folder
    if damage == "truncated":
        (folder / "frame.npy").write_bytes((folder / "frame.npy").read_bytes()[:99_999])
    elif damage == "missing":
        (folder / "mean.npy").unlink()
    elif damage == "meta":
        (folder / "meta.json").write_text("{")
    elif damage == "reshaped":
        np.save(folder / "frame.npy", np.zeros((500, 32, 64), np.uint8))
    elif damage == "shorter":
        np.save(folder / "reward.npy", np.zeros(3))
    else:
        (folder / "meta.json").write_text(json.dumps({**dataset.meta, "version": 99}))
    with pytest.raises(BadFile, match="dataset_500"):
        open_dataset(folder)


def test_the_minari_export_holds_the_same_data(dataset, task, tmp_path):
    import minari

    from Algorithm.Minari_export import export_minari

    export_minari(dataset, task, tmp_path / "minari")
    exported = minari.MinariDataset(tmp_path / "minari")
    assert exported.total_episodes == 5
    episode, rows = exported[3], slice(300, 400)
    fields = dataset.fields
    np.testing.assert_array_equal(episode.observations["Frame"][:100], fields["frame"][rows])
    np.testing.assert_array_equal(episode.observations["State"][:100], fields["state"][rows])
    assert len(episode.observations["Frame"]) == 101
    np.testing.assert_array_equal(episode.actions, fields["action"][rows])
    np.testing.assert_array_equal(episode.rewards, fields["reward"][rows])
    np.testing.assert_array_equal(episode.infos["mean"], fields["mean"][rows])
    assert episode.truncations.tolist() == [False] * 99 + [True]


# Behavioural cloning


@pytest.mark.parametrize("loss_type", ["NLL", "KL"])
def test_the_loss_falls_and_five_episodes_are_learned_by_heart(env, task, statistics, teacher, dataset, loss_type):
    config = CloningConfig(optimization_steps=2000, loss_type=loss_type, learning_rate=3e-3)
    trainer = BehaviouralCloning(student_for(env, task, statistics, "State"), dataset.fields, task, config, 0)
    trainer.start()
    first = trainer.step(100)
    while trainer.optimization_steps < 2000:
        last = trainer.step(2000)
    assert last["training/loss"] < first["training/loss"] - 1
    assert last["training/action_accuracy"] > 0.99


@pytest.mark.parametrize("mode", ["State", "ImpaalaSmall", "ImpaalaMid", "ImpaalaBig"])
def test_an_update_changes_every_kind_of_student(env, task, statistics, dataset, mode):
    student = student_for(env, task, statistics, mode)
    before = {name: value.clone() for name, value in student.named_parameters()}
    trainer = BehaviouralCloning(
        student, dataset.fields, task, CloningConfig(optimization_steps=2, minibatch_size=4), 0
    )
    trainer.start()
    assert math.isfinite(trainer.step(2)["training/loss"])
    unchanged = {name for name, value in student.named_parameters() if torch.equal(value, before[name])}
    assert all(name.startswith("critic") for name in unchanged)


def test_samples_are_stacked_as_the_environment_would(env, task, statistics, dataset):
    trainer = BehaviouralCloning(student_for(env, task, statistics), dataset.fields, task, CloningConfig(), 0)
    obs, teacher = trainer.samples.gather(np.array([0, 3, 100, 101, 499]))
    frame = dataset.fields["frame"]
    for stack, rows in zip(
        obs["Frame"], ([0, 0, 0, 0], [0, 0, 1, 3], [100] * 4, [100, 100, 100, 101], [493, 495, 497, 499])
    ):
        np.testing.assert_array_equal(stack, frame[rows])
    np.testing.assert_array_equal(obs["PartialState"][4], dataset.fields["proprioception"][499])
    np.testing.assert_array_equal(teacher.mean[4], dataset.fields["mean"][499])


def test_priorities_are_the_losses_of_the_samples_just_trained_on(env, task, statistics, dataset):
    config = CloningConfig(alpha=0.6, loss_type="KL", minibatch_size=8)
    trainer = BehaviouralCloning(student_for(env, task, statistics), dataset.fields, task, config, 0)
    trainer.start()
    before = copy.deepcopy(trainer.student)
    trainer.update()
    trained = np.flatnonzero(trainer.priorities.error)
    assert 1 < len(trained) <= 8
    obs, teacher = trainer.samples.gather(trained)
    with torch.no_grad():
        errors = distillation_kl(teacher, before.distribution(obs))
    np.testing.assert_allclose(trainer.priorities.error[trained], errors, rtol=1e-3)


def test_augmentation():
    torch.manual_seed(0)
    frames = torch.arange(32 * 48).reshape(1, 1, 32, 48).remainder(251).to(torch.uint8).repeat(16, 4, 1, 1)
    empty = torch.zeros(32, 48)
    assert torch.equal(augment(frames, empty, 0, 0), frames)
    shifted = augment(frames, empty, 0, 3)
    assert shifted.shape == frames.shape
    assert (shifted[:, :1] == shifted).all()  # one shift for a stack
    inner = {tuple(stack[0, 3:-3, 3:-3].flatten().tolist()) for stack in shifted}
    possible = {
        tuple(frames[0, 0, 3 + y : 29 + y, 3 + x : 45 + x].flatten().tolist())
        for y in range(-3, 4)
        for x in range(-3, 4)
    }
    assert len(inner) > 1
    assert inner <= possible
    gray = torch.full((2, 4, 64, 128), 100, dtype=torch.uint8)
    still = torch.full((64, 128), 100.0)
    noisy = augment(gray, still, 5, 0)
    assert noisy.dtype == torch.uint8
    assert noisy.float().std() == pytest.approx(5, rel=0.1)
    assert augment(gray, still, 500, 0).float().min() == 0
    # What stands still stays where the model subtracts it.
    assert torch.equal(augment(frames, frames[0, 0].float(), 0, 3), frames)


# DAgger


def dagger(env, task, statistics, teacher, dataset, folder, **settings):
    settings = {"optimization_steps": 8, "rollout_updates": 4, "rollout_samples": 150, "minibatch_size": 8, **settings}
    student = student_for(env, task, statistics)
    return DAgger(
        student,
        dataset.fields,
        task,
        DAggerConfig(**settings),
        800_000,
        env=env,
        teacher=teacher,
        priorities=Priorities(len(dataset), 0.0, 1.0).state_dict(),
        folder=folder,
    )


def test_dagger_labels_are_the_teachers_own_output_on_the_students_states(
    env, task, statistics, teacher, dataset, tmp_path
):
    trainer = dagger(env, task, statistics, teacher, dataset, tmp_path / "aggregated")
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


def test_dagger_lets_the_teacher_act_as_often_as_beta_mix_says(env, task, statistics, teacher, dataset, tmp_path):
    trainer = dagger(env, task, statistics, teacher, dataset, tmp_path / "aggregated", beta_mix=1.0)
    obs = {key: np.repeat(values[:1], 400, 0) for key, values in env.reset(seed=1)[0].items()}
    obs["Frame"] = np.repeat(obs["Frame"][:, None], 4, 1)
    expected = teacher.act(obs)
    np.testing.assert_allclose(trainer.act(obs)[0], expected)
    trainer.optimization_steps = 4  # halfway
    share = (np.abs(trainer.act(obs)[0] - expected) < 1e-6).all(-1).mean()
    assert share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("sampling", ["classic", "balanced"])
def test_dynamic_alpha_and_sampling(env, task, statistics, teacher, dataset, tmp_path, sampling):
    settings = {"mode_alpha": "dynamic_mean", "sampling": sampling}
    trainer = dagger(env, task, statistics, teacher, dataset, tmp_path / "aggregated", **settings)
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


def test_a_resumed_run_equals_an_unbroken_one(env, task, statistics, teacher, dataset, tmp_path):
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
        return dagger(env, task, statistics, teacher, dataset, tmp_path / folder, mode_alpha="dynamic_max")

    def cloning(folder):
        config = CloningConfig(optimization_steps=8, minibatch_size=8, alpha=0.6, frame_noise=2, random_shift=2)
        return BehaviouralCloning(student_for(env, task, statistics), dataset.fields, task, config, 700_000)

    for make in (cloning, dagger_in):
        (stats, weights), (again, same) = run(f"{make.__name__}1", make, False), run(f"{make.__name__}2", make, True)
        assert stats == again
        assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dagger_steps_and_resumes_on_cuda(env, task, statistics, teacher, dataset, tmp_path):
    student = student_for(env, task, statistics).to("cuda")
    student.precision = "bf16"
    config = DAggerConfig(optimization_steps=8, rollout_updates=4, rollout_samples=150, alpha=0.6, random_shift=2)

    def build():
        return DAgger(
            student,
            dataset.fields,
            task,
            config,
            800_000,
            env=env,
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
    by_kernels = trainer.gradients(**batch)
    torch.testing.assert_close(trainer._gradients(**batch), by_kernels, rtol=0.05, atol=1e-2)
    trainer = build()
    trainer.load_state_dict(state)
    assert trainer.step(100)["training/loss"] == pytest.approx(after["training/loss"], rel=0.05)


# Online distillation


def online(env, task, statistics, teacher, config, mode="State"):
    method = TeacherDistillation if isinstance(config, TeacherDistillationConfig) else StudentDistillation
    trainer = method(student_for(env, task, statistics, mode), env, task, config, 0, teacher=teacher)
    trainer.start()
    return trainer


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_student_and_teacher_distillation_differ_in_who_acts(task, statistics, teacher, noise):
    env = make_vector_env(task, 2, 1)
    by_student = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0))
    by_student.collect()
    by_student.prepare()
    by_teacher = online(
        env,
        task,
        statistics,
        teacher,
        TeacherDistillationConfig(**SIZES, teacher_noise=noise, noise_correlation=0, value_coefficient=0),
    )
    by_teacher.collect()
    by_teacher.prepare()
    u, labels = by_teacher.rollout.u.flatten(0, 1), by_teacher.rollout.teacher
    spread = ((u - labels.mean) / labels.log_std.exp()).std()
    assert spread == pytest.approx(noise, abs=0.2)
    student, _ = by_student.student(by_student.rollout.observation(0))
    assert (by_student.rollout.u[0] - student.mean).abs().max() < 4 * student.log_std.exp().max()
    # Nothing else differs: on one rollout both have one loss.
    batch = by_teacher.rollout.minibatch(torch.arange(16))
    assert by_teacher.loss(batch)[0].item() == by_student.loss(batch)[0].item()
    env.close()


def test_student_distillation_adds_ppo_and_teacher_distillation_a_critic(task, statistics, teacher):
    env = make_vector_env(task, 2, 1, frames=False)
    trainer = online(env, task, statistics, teacher, StudentDistillationConfig(**SIZES, rl_coef=0.5))
    trainer.collect()
    trainer.prepare()
    batch = trainer.rollout.minibatch(torch.arange(16))
    policy, value = trainer.student(batch.obs)
    kl = distillation_kl(batch.teacher, policy).mean()
    ppo, _ = trainer.ppo_loss(batch, policy, value, trainer.ratio(batch, policy))
    torch.testing.assert_close(trainer.loss(batch)[0], kl + 0.5 * ppo)
    trainer = online(env, task, statistics, teacher, TeacherDistillationConfig(**SIZES))
    critic = copy.deepcopy(trainer.student.critic.state_dict())
    stats = trainer.step(100)
    assert all(not torch.equal(value, critic[key]) for key, value in trainer.student.critic.state_dict().items())
    for key in ("distillation_kl", "action_accuracy", "entropy", "value_loss"):
        assert math.isfinite(stats[f"training/{key}"])
    env.close()


def test_collect_reaches_the_samples_asked_for_in_whole_episodes(env):
    seeds, count = [], 0

    def act(obs):
        return np.zeros((3, 7), np.float32), {}

    for part in collect(env, 5, 401, act, FrameStacker(4, 2)):
        seeds += sorted(set(part["seed"].tolist()))
        count += len(part["seed"])
        assert episode_ends(part["episode_start"])[-1] == len(part["seed"])
        assert part["frame"].shape[1:] == (64, 128)
    assert seeds == [5, 6, 7, 8, 9]
    assert count == 500
