"""What rollouts hold."""

import copy

import numpy as np
import torch

from Algorithm.Config import PPOConfig
from Algorithm.PPD import PPD
from Algorithm.Rollout import ReturnNormalizer
from tests.Algorithm.trainers import SMALL_PPD, build, on_devices


def test_a_rollouts_stacks_are_those_of_a_naive_stack_over_several_rollouts(env, task, statistics, monkeypatch):
    """112 steps in rollouts of 8: over two time limits, which the final observations belong to as well."""
    trainer = build(env, task, statistics)
    rollout, history = trainer.rollout, trainer.student.stack.history
    frames, first, last = [rollout.frames["Frame"][history].numpy().copy()], [np.ones(2, bool)], {}
    step, final_observation = env.step, rollout.final_observation

    def watched_step(actions):
        result = step(actions)
        frames.append(result.obs["Frame"].numpy().copy())
        first.append(result.done.numpy())
        return result

    def watched_final_observation(t, final, ended):
        obs = final_observation(t, final, ended)
        for row, n in enumerate(ended):
            last[len(frames) - 2, int(n)] = obs["Frame"][row].numpy().copy(), final["Frame"][n].numpy().copy()
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
        trainer.collect_rollout()
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
    trainer.collect_rollout()
    rollout = trainer.rollout
    assert rollout.done.nonzero().tolist() == [[49, 1], [99, 0]]
    assert not rollout.terminated.any()
    for t, n in ((49, 1), (99, 0)):
        following = trainer.student.value(rollout.observation(t + 1))[n]  # the next episode's first observation
        assert not torch.isclose(rollout.next_value[t, n], following)
    torch.testing.assert_close(rollout.next_value[98, 0], rollout.value[99, 0])


def test_the_return_normalizer_scales_by_the_discounted_returns_spread():
    rewards = np.random.default_rng(0).normal(-3, 2, (400, 5))
    done = np.zeros((400, 5), bool)
    done[99::100] = True
    normalizer = ReturnNormalizer(5, gamma=0.9)
    whole = torch.from_numpy(rewards), torch.from_numpy(done)
    parts = [normalizer(*(values[i : i + 100] for values in whole)) for i in range(0, 400, 100)]
    returns, running = [], np.zeros(5)
    for reward, end in zip(rewards, done):
        running = 0.9 * running + reward
        returns.append(running)
        running = running * ~end
    np.testing.assert_allclose(parts[-1], rewards[300:] / np.std(returns), rtol=1e-6)


@on_devices
def test_a_rollout_written_on_another_device_gives_the_same_stacks_and_gradients(
    env, task, statistics, teacher, device
):
    here = build(env, task, statistics, PPD, config=SMALL_PPD, teacher=teacher)
    here.collect_rollout()
    here.compute_targets()
    student = copy.deepcopy(here.student).to(device)
    there = PPD(student, env, SMALL_PPD, 0, teacher=copy.deepcopy(teacher).to(device))
    old, new = here.rollout, there.rollout
    for t in range(old.steps + 1):
        obs = {key: vector[t] for key, vector in old.vectors.items()}
        obs["Frame"] = old.frames["Frame"][here.student.stack.history + t]
        new.write_observation(t, obs, old.age[t] == 0)
        if device == "cuda":
            torch.cuda.synchronize()  # as reading a step's actions back does
    for name in ("u", "log_prob", "value", "advantage", "returns"):
        getattr(new, name).copy_(getattr(old, name))
    new.ask(there.teacher)
    losses = {}
    for trainer in (here, there):
        batch = trainer.rollout.minibatch(torch.arange(16, device=trainer.device))
        losses[trainer] = trainer.loss(batch).total
        losses[trainer].backward()
        stacks = old.minibatch(torch.arange(16)).obs["Frame"]
        assert torch.equal(batch.obs["Frame"].cpu(), stacks)
    torch.testing.assert_close(losses[there].cpu(), losses[here], rtol=1e-2, atol=1e-3)
    for one, other in zip(here.student.parameters(), there.student.parameters()):
        assert (one.grad - other.grad.cpu()).norm() <= 0.02 * one.grad.norm() + 1e-6
