import copy

import numpy as np
import pytest
import torch
from conftest import student_for

from Algorithm.Config import PPDConfig, PPOConfig
from Algorithm.PPD import PPD
from Algorithm.PPO import PPO
from Algorithm.Recorded import Recorded
from Algorithm.Rollout import ReturnNormalizer
from Algorithm.Test_model import RandomPolicy, Recording, ZeroPolicy, evaluate, normalized_return, parse_seeds
from Enviroment.Utils import make_vector_env
from Models.Model_Pusher import make_student

SIZES = {"num_envs": 2, "rollout_steps": 8, "minibatch_size": 16, "epochs": 2}
SMALL, SMALL_PPD = PPOConfig(**SIZES), PPDConfig(**SIZES)


@pytest.fixture
def env(task):
    env = make_vector_env(task, 2, 1, seed=0)
    yield env
    env.close()


def build(env, task, statistics, method=PPO, mode="ImpaalaSmall", config=SMALL, **arguments):
    trainer = method(student_for(env, task, statistics, mode), env, task, config, 0, **arguments)
    trainer.start()
    return trainer


def test_an_update_changes_the_student_and_not_the_teacher(env, task, statistics, teacher):
    trainer = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
    student_before = copy.deepcopy(trainer.student.state_dict())
    teacher_before = copy.deepcopy(teacher.state_dict())
    stats = trainer.step(budget=10)
    assert all(np.isfinite(value) or key == "training/episode_return" for key, value in stats.items())
    assert all(torch.equal(value, teacher_before[key]) for key, value in teacher.state_dict().items())
    changed = [not torch.equal(value, student_before[key]) for key, value in trainer.student.state_dict().items()]
    names = list(student_before)
    assert all(change or name == "background" for change, name in zip(changed, names))


def test_ppd_without_its_term_is_ppo(env, task, statistics, teacher):
    trainer = build(env, task, statistics, PPD, config=PPDConfig(**SIZES, PPD_parameter=0), teacher=teacher)
    trainer.collect()
    trainer.prepare()
    batch = trainer.rollout.minibatch(torch.arange(16))
    torch.manual_seed(1)
    with_term, _ = trainer.loss(batch)
    plain = PPO(trainer.student, env, task, SMALL, 0)
    torch.manual_seed(1)
    without, _ = plain.loss(batch)
    assert with_term.item() == without.item()
    trainer.config = SMALL_PPD
    assert trainer.loss(batch)[0].item() > without.item()


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.02)])
def test_the_first_minibatch_has_a_ratio_of_one(env, task, statistics, precision, tolerance):
    trainer = build(env, task, statistics, mode="ImpaalaMid")
    trainer.student.precision = precision
    trainer.collect()
    batch = trainer.rollout.minibatch(torch.randperm(16))
    with torch.no_grad():
        ratio = (trainer.student.distribution(batch.obs).log_prob(batch.u) - batch.log_prob).exp()
    assert (ratio - 1).abs().max() < tolerance


def test_a_ratio_that_underflows_leaves_every_scalar_finite(env, task, statistics):
    trainer = build(env, task, statistics, mode="State")
    trainer.collect()
    trainer.prepare()
    batch = trainer.rollout.minibatch(torch.arange(16))
    policy, value = trainer.student(batch.obs)
    loss, scalars = trainer.ppo_loss(batch, policy, value, torch.zeros(16))
    assert all(torch.isfinite(scalar) for scalar in (loss, *scalars.values()))


def test_a_rollouts_stacks_are_those_of_a_naive_stack_over_several_rollouts(env, task, statistics, monkeypatch):
    """112 steps in rollouts of 8: over two time limits, which the final observations belong to as well."""
    trainer = build(env, task, statistics, mode="State")
    rollout = trainer.rollout
    frames, first, last = [rollout.frames[rollout.history].numpy().copy()], [np.ones(2, bool)], {}
    step, final_observation = env.step, rollout.final_observation

    def watched_step(actions):
        obs, reward, terminated, truncated, info = step(actions)
        frames.append(obs["Frame"].copy())
        first.append(terminated | truncated)
        return obs, reward, terminated, truncated, info

    def watched_final_observation(t, final, ended):
        obs = final_observation(t, final, ended)
        for row, n in enumerate(ended):
            last[len(frames) - 2, n] = obs["Frame"][row].numpy().copy(), final["Frame"][n].copy()
        return obs

    monkeypatch.setattr(env, "step", watched_step)
    monkeypatch.setattr(rollout, "final_observation", watched_final_observation)

    def naive(t, n, final=None):
        """The stack of time t; with `final`, of the time after it had the episode gone on with that frame."""
        start = max(s for s in range(t + 1) if first[s][n])
        now = t + (final is not None)
        times = [max(now - back, start) for back in (6, 4, 2, 0)]
        return np.stack([final if time > t else frames[time][n] for time in times])

    for number in range(14):
        trainer.collect()
        for t in range(8):
            stacks = rollout.observation(t)["Frame"].numpy()
            for n in range(2):
                np.testing.assert_array_equal(stacks[n], naive(number * 8 + t, n))
        rollout.carry_over()
    assert set(last) == {(49, 1), (99, 0)}  # staggered: the second environment's first episode is half as long
    for (t, n), (stack, frame) in last.items():
        np.testing.assert_array_equal(stack, naive(t, n, frame))


def test_a_truncated_step_bootstraps_from_its_own_last_observation(env, task, statistics):
    trainer = build(env, task, statistics, mode="State", config=PPOConfig(rollout_steps=101))
    trainer.collect()
    rollout = trainer.rollout
    assert rollout.done.nonzero().tolist() == [[49, 1], [99, 0]]
    assert not rollout.terminated.any()
    for t, n in ((49, 1), (99, 0)):
        following = trainer.student.value(rollout.observation(t + 1))[n]  # the next episode's first observation
        assert not torch.isclose(rollout.next_value[t, n], following)
    torch.testing.assert_close(rollout.next_value[98, 0], rollout.value[99, 0])


def test_same_seed_same_numbers_and_a_checkpoint_goes_on_exactly(task, statistics, teacher):
    def run(interrupted):
        env = make_vector_env(task, 2, 1 + interrupted, seed=0)
        trainer = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
        stats = [trainer.step(10) for _ in range(2)]
        if interrupted:
            state = copy.deepcopy(trainer.state_dict())
            env.close()
            torch.manual_seed(123)
            env = make_vector_env(task, 2, 1)
            trainer = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
            trainer.load_state_dict(state)
        stats += [trainer.step(10) for _ in range(2)]
        env.close()
        return stats, trainer.student.state_dict()

    (one, weights), (same, _), (resumed, resumed_weights) = run(False), run(False), run(True)
    assert str(one) == str(same) == str(resumed)
    assert all(torch.equal(weights[key], resumed_weights[key]) for key in weights)


def test_the_budget_of_updates_is_kept(env, task, statistics):
    trainer = build(env, task, statistics, mode="State", config=PPOConfig(rollout_steps=8, minibatch_size=4, epochs=4))
    trainer.step(budget=3)
    assert trainer.optimization_steps == 3
    assert trainer.samples_seen == 12
    trainer.step(budget=100)
    assert trainer.optimization_steps == 3 + 16


def test_the_return_normalizer_scales_by_the_discounted_returns_spread():
    rewards = np.random.default_rng(0).normal(-3, 2, (400, 5))
    done = np.zeros((400, 5), bool)
    done[99::100] = True
    normalizer = ReturnNormalizer(5, gamma=0.9)
    parts = [normalizer(rewards[i : i + 100], done[i : i + 100]) for i in range(0, 400, 100)]
    returns, running = [], np.zeros(5)
    for reward, end in zip(rewards, done):
        running = 0.9 * running + reward
        returns.append(running)
        running = running * ~end
    np.testing.assert_allclose(parts[-1], rewards[300:] / np.std(returns), rtol=1e-6)


def test_evaluation_repeats_itself_and_knows_its_figures(env, task, teacher):
    zero = evaluate(ZeroPolicy(env.single_action_space), env, task, [1900, 1901, 1902])
    again = evaluate(ZeroPolicy(env.single_action_space), env, task, [1902])
    assert again.returns[0] == zero.returns[2]  # whatever the round and the neighbours
    random = evaluate(RandomPolicy(env.single_action_space), env, task, [1900, 1901, 1902], teacher=teacher)
    assert random.returns.mean() < zero.returns.mean() < -30
    assert normalized_return(zero, zero, random) == 0
    assert normalized_return(random, zero, random) == 1
    assert not zero.success.any()
    recording = Recording()
    perfect = evaluate(teacher, env, task, [1900, 1901], teacher=teacher, recording=recording)
    np.testing.assert_allclose(perfect.action_accuracy, 1)
    assert (len(recording.actions), len(recording.stacks)) == (100, 0)  # it sees no frames, and none were rendered
    guided = evaluate(RandomPolicy(env.single_action_space), env, task, [1900, 1901], teacher=teacher, driver=teacher)
    np.testing.assert_array_equal(guided.returns, perfect.returns)
    assert (guided.action_accuracy < 1).all()


def test_a_recording_holds_what_a_policy_that_sees_was_shown(env, task, statistics):
    student = build(env, task, statistics).student
    recording = Recording()
    evaluate(student, env, task, [1900], recording=recording)
    assert len(recording.actions) == len(recording.stacks) == 100
    assert recording.stacks[0].shape == (2, 4, 64, 128)
    assert (recording.stacks[0][0] == recording.stacks[0][0, -1]).all()  # the first frame fills the stack
    assert (recording.stacks[6][0, 0] == recording.stacks[0][0, -1]).all()


def test_an_evaluation_leaves_the_random_numbers_alone(env, task, teacher):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    evaluate(teacher, env, task, [1900], deterministic=False)
    assert torch.rand(1) == expected


def test_seeds_are_read_from_ranges_and_lists():
    assert parse_seeds("1900-1902,7") == [1900, 1901, 1902, 7]
    for bad in ("", "a", "5-", "9-3"):
        with pytest.raises(ValueError, match="1900-1999"):
            parse_seeds(bad)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_a_rollout_written_on_another_device_gives_the_same_stacks_and_gradients(
    env, task, statistics, teacher, device
):
    here = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
    here.collect()
    here.prepare()
    student = copy.deepcopy(here.student).to(device)
    there = PPD(student, env, task, SMALL_PPD, 0, teacher=copy.deepcopy(teacher).to(device))
    old, new = here.rollout, there.rollout
    for t in range(old.steps + 1):
        obs = {key: vector[t].numpy() for key, vector in old.vectors.items()}
        new.write_observation(t, obs | {"Frame": old.frames[old.history + t].numpy()}, old.age[t].numpy() == 0)
        if device == "cuda":
            torch.cuda.synchronize()  # as reading a step's actions back does
    for name in ("u", "log_prob", "value", "advantage", "returns"):
        getattr(new, name).copy_(getattr(old, name))
    new.ask(there.teacher)
    losses = {}
    for trainer in (here, there):
        batch = trainer.rollout.minibatch(torch.arange(16, device=trainer.device))
        losses[trainer], _ = trainer.loss(batch)
        losses[trainer].backward()
        stacks = old.minibatch(torch.arange(16)).obs["Frame"]
        assert torch.equal(batch.obs["Frame"].cpu(), stacks)
    torch.testing.assert_close(losses[there].cpu(), losses[here], rtol=1e-2, atol=1e-3)
    for one, other in zip(here.student.parameters(), there.student.parameters()):
        assert (one.grad - other.grad.cpu()).norm() <= 0.02 * one.grad.norm() + 1e-6


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_update_computes_what_one_launched_kernel_by_kernel_does(env, task, statistics, teacher, precision):
    config = PPDConfig(**SIZES, entropy_coefficient=0)  # its estimate is random
    student = student_for(env, task, statistics).to("cuda")
    student.precision = precision
    trainer = PPD(student, env, task, config, 0, teacher=teacher.to("cuda"))
    trainer.start()
    recorded = Recorded(student, trainer.gradients)
    for samples in (16, 16, 7, 16):  # a new rollout each time, and another shape in between
        trainer.collect()
        with torch.no_grad():
            seen = trainer.rollout.observation(0)
            torch.testing.assert_close(trainer._outputs(**seen), trainer.outputs(**seen), rtol=1e-2, atol=1e-2)
        trainer.prepare()
        indices = torch.randperm(16, device="cuda")[:samples]
        results = []
        for compute in (recorded, trainer.gradients):
            for parameter in student.parameters():
                parameter.grad = None
            scalars = compute(indices=indices)
            results.append((scalars, [parameter.grad.clone() for parameter in student.parameters()]))
        (scalars, gradients), (expected_scalars, expected) = results
        assert scalars.keys() == expected_scalars.keys()
        for name, value in expected_scalars.items():
            if name != "training/entropy":
                torch.testing.assert_close(scalars[name], value.detach(), rtol=1e-2, atol=1e-4)
        for one, other in zip(gradients, expected):
            assert (one - other).norm() <= 0.02 * other.norm() + 1e-6
        trainer.optimizer.step()
        trainer.rollout.carry_over()
    assert recorded(indices=indices)["training/entropy"] != recorded(indices=indices)["training/entropy"]


@needs_cuda
def test_a_step_a_checkpoint_and_an_evaluation_on_cuda(env, task, statistics, teacher):
    student = make_student(
        "ImpaalaSmall",
        env.single_observation_space,
        env.single_action_space,
        task.proprioception,
        statistics,
        task.stack,
    ).to("cuda")
    student.precision = "bf16"
    trainer = PPD(student, env, task, SMALL_PPD, 0, teacher=teacher.to("cuda"))
    trainer.start()
    stats = trainer.step(budget=10)
    assert np.isfinite(stats["training/loss"])
    state = copy.deepcopy(trainer.state_dict())
    after = trainer.step(budget=10)
    random = torch.cuda.get_rng_state()
    evaluate(student, env, task, [1900], teacher=teacher)
    assert torch.equal(torch.cuda.get_rng_state(), random)
    trainer.load_state_dict(state)
    assert trainer.step(budget=10)["training/loss"] == pytest.approx(after["training/loss"], rel=0.05)
