"""A teacher acts as the file of Stable-Baselines3 it was taken from, and what does not fit is refused in a line."""

import base64
import json
import os
import pickle
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from Algorithm.Policies import proof_error
from Common.Errors import BadFile, BadInput
from Common.Files import load_tensors
from Enviroment.Tasks import TASKS
from Models.Model_Pusher import SHIPPED_TEACHER, get_Teacher_model
from tests.helpers import byte_code
from Train_Teacher_Pusher import SaveWeights
from Train_Teacher_Pusher.Original import read_original
from Train_Teacher_Pusher.SaveWeights import normalization, save_weights, teacher_from_model
from Train_Teacher_Pusher.Statistics import find_statistics

ACTIONS = gym.spaces.Box(np.array([0.0, -2.0], np.float32), np.array([1.0, 3.0], np.float32))
STATE = gym.spaces.Box(-np.inf, np.inf, (5,), np.float64)
PARTS = gym.spaces.Dict(
    {"goal": gym.spaces.Box(-1, 1, (2,), np.float32), "body": gym.spaces.Box(-9, 9, (3,), np.float32)}
)


class Spaces(gym.Env):
    """An environment that is only looked at."""

    def __init__(self, observation, actions):
        self.observation_space, self.action_space = observation, actions

    def reset(self, **_):
        return self.observation_space.sample(), {}


def model_of(name, observation=STATE, actions=ACTIONS, statistics=None, policy_kwargs=None, **settings):
    """An untrained model whose actions differ from state to state, and the statistics of its observations."""
    settings["policy_kwargs"] = dict(policy_kwargs or {})  # Stable-Baselines3 changes it
    off_policy = name in ("SAC", "TQC", "TD3", "DDPG")
    settings |= {"buffer_size": 10} if off_policy else {"n_steps": 8}
    settings |= {"batch_size": 8} if name in ("PPO", "TRPO") else {}
    env = DummyVecEnv([lambda: Spaces(observation, actions)])
    env = env if statistics is None else VecNormalize(env, **statistics)
    policy = "MultiInputPolicy" if isinstance(observation, gym.spaces.Dict) else "MlpPolicy"
    algorithm = getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)
    model = algorithm(policy, env, seed=0, device="cpu", **settings)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    for key, rms in {} if statistics is None or not env.norm_obs else parts(env.obs_rms).items():
        rms.mean, rms.var = np.linspace(-1, len(key), len(rms.mean)), np.linspace(0.2, 3, len(rms.mean))
    return model, None if statistics is None else env


def parts(found):
    return found if isinstance(found, dict) else {"": found}


def states(count=50):
    return np.random.default_rng(0).normal(0, 1, (count, 5)).astype(np.float32)


def taken_over(model, folder, statistics=None):
    """The teacher, by way of the model's files."""
    path, saved = folder / "x.zip", folder / "x_vecnormalize.pkl"
    model.save(path)
    if statistics is not None:
        statistics.save(saved)
    original = read_original(path, 5, model.action_space, find_statistics(path, "Spaces-v0"))
    return teacher_from_model(original, original.statistics), original


SMALL = {"net_arch": [16, 8]}
CASES = {
    "SAC": ("SAC", SMALL, {}),
    "SAC ELU": ("SAC", {"net_arch": {"pi": [8], "qf": [4]}, "activation_fn": nn.ELU}, {}),
    "SAC gSDE": ("SAC", SMALL | {"clip_mean": 0.5, "use_expln": True}, {"use_sde": True}),
    "SAC gSDE unclipped": ("SAC", SMALL | {"clip_mean": 0.0}, {"use_sde": True}),
    "TQC": ("TQC", SMALL, {}),
    "TD3": ("TD3", SMALL | {"activation_fn": nn.Tanh}, {}),
    "DDPG": ("DDPG", {"net_arch": []}, {}),
    "PPO": ("PPO", SMALL, {}),
    "PPO PReLU": ("PPO", SMALL | {"activation_fn": nn.PReLU}, {}),
    "PPO gSDE": ("PPO", SMALL | {"full_std": False}, {"use_sde": True}),
    "PPO gSDE squashed": ("PPO", SMALL | {"squash_output": True, "use_expln": True}, {"use_sde": True}),
    "A2C": ("A2C", {"net_arch": {"pi": [8], "vf": [4]}, "share_features_extractor": False}, {}),
    "TRPO": ("TRPO", SMALL, {}),
}


def gaussian_of(policy, given):
    """Mean and standard deviation of Stable-Baselines3's policy before it is squashed or clipped, or None."""
    with torch.no_grad():
        if not hasattr(policy, "actor"):
            found = policy.get_distribution(given).distribution
        elif hasattr(policy.actor, "get_action_dist_params"):
            mean, log_std, more = policy.actor.get_action_dist_params(given)
            found = policy.actor.action_dist.proba_distribution(mean, log_std, **more).distribution
        else:
            return None
    return found.mean, found.stddev


@pytest.mark.parametrize("case", CASES)
def test_a_teacher_has_the_policy_of_its_original(case, tmp_path):
    name, kwargs, settings = CASES[case]
    model, _ = model_of(name, policy_kwargs=kwargs, **settings)
    teacher, original = taken_over(model, tmp_path)
    expected, _ = model.predict(states(), deterministic=True)
    np.testing.assert_allclose(original.act({"State": states()}), expected, atol=1e-6)
    np.testing.assert_allclose(teacher.act({"State": states()}), expected, atol=1e-5)
    assert original.algorithm == name
    ours, theirs = (
        teacher.distribution({"State": torch.from_numpy(states())}),
        gaussian_of(model.policy, torch.from_numpy(states())),
    )
    if theirs is None:
        assert ours.log_std.exp().unique().tolist() == pytest.approx([0.1])
    else:
        squashed = teacher.family == "squashed"
        scale, shift = (1, 0) if squashed else (teacher.scale, teacher.shift)
        torch.testing.assert_close(ours.mean * scale + shift, theirs[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.log_std.exp() * scale, theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", [None, ["body"]])
def test_dictionaries_are_joined_as_states_are(keys, tmp_path):
    model, statistics = model_of("TQC", PARTS, statistics={"norm_obs_keys": keys}, policy_kwargs=SMALL)
    teacher, _ = taken_over(model, tmp_path, statistics)
    seen = states()
    given = statistics.normalize_obs({"body": seen[:, :3], "goal": seen[:, 3:]})
    np.testing.assert_allclose(teacher.act({"State": seen}), model.predict(given, deterministic=True)[0], atol=1e-5)
    assert teacher.clip.isinf().any() == (keys is not None)


@pytest.mark.parametrize("norm_obs", [True, False])
def test_statistics_normalize_if_they_say_so(norm_obs, tmp_path):
    model, statistics = model_of("PPO", statistics={"norm_obs": norm_obs, "clip_obs": 1.0}, policy_kwargs=SMALL)
    teacher, _ = taken_over(model, tmp_path, statistics)
    expected, _ = model.predict(statistics.normalize_obs(states()), deterministic=True)
    np.testing.assert_allclose(teacher.act({"State": states()}), expected, atol=1e-5)


def rewritten(path, change, policy=None):
    """Change a zip's JSON, and its policy's weights."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(content["data"])
    change(data)
    content["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in content.items():
            if name == "policy.pth" and policy is not None:
                with archive.open(name, "w") as file:
                    torch.save(policy, file)
            else:
                archive.writestr(name, part)


def test_layers_that_actor_and_critic_shared(tmp_path):
    model, _ = model_of("PPO", policy_kwargs={"net_arch": {"pi": [16, 8], "vf": [16, 4]}})
    path, weights = tmp_path / "old.zip", {}
    model.save(path)
    for name, value in model.policy.state_dict().items():
        for net in ("policy_net", "value_net"):
            name = name.replace(f"{net}.0.", "shared_net.0." if net == "policy_net" else "none").replace(
                f"{net}.2.", f"{net}.0."
            )
        weights |= {name: value} if "none" not in name else {}
    rewritten(path, lambda data: data["policy_kwargs"].update(net_arch=[16, {"pi": [8], "vf": [4]}]), weights)
    teacher = teacher_from_model(read_original(path, 5, ACTIONS, None), None)
    np.testing.assert_allclose(
        teacher.act({"State": states()}), model.predict(states(), deterministic=True)[0], atol=1e-5
    )


class Bomb:
    def __reduce__(self):
        return os._exit, (3,)


def test_nothing_that_another_python_or_anybody_pickled_is_executed(tmp_path):
    model, statistics = model_of("SAC", statistics={}, policy_kwargs=SMALL | {"activation_fn": nn.Tanh})
    statistics.observation_space, statistics.foreign = Bomb(), [Bomb(), gym.spaces.Discrete(3)]
    path = tmp_path / "x.zip"
    model.save(path)
    statistics.save(tmp_path / "vecnormalize.pkl")

    def spoil(data):
        data["lr_schedule"] = {":type:": "<class 'function'>", ":serialized:": "gASVAAAAAA=="}
        for entry in data.values():
            if isinstance(entry, dict) and ":serialized:" in entry:
                entry[":serialized:"] = base64.b64encode(pickle.dumps(Bomb())).decode()

    rewritten(path, spoil)
    original = read_original(path, 5, ACTIONS, find_statistics(path, "Spaces-v0"))
    teacher = teacher_from_model(original, original.statistics)
    expected, _ = model.predict(statistics.normalize_obs(states()), deterministic=True)
    np.testing.assert_allclose(teacher.act({"State": states()}), expected, atol=1e-5)


def module(name):
    return lambda data: data["policy_class"].update(__module__=name)


def entry(key, **values):
    return lambda data: data[key].update(values)


REFUSED = {
    "trained with 5 inputs where the task has 4": (4, lambda data: None),
    "DQN is not supported; SAC, TQC": (5, module("stable_baselines3.dqn.policies")),
    "RecurrentPPO is not supported": (5, module("sb3_contrib.common.recurrent.policies")),
    "a policy class of the module 'mine' is not": (5, module("mine")),
    "its actions are Discrete, where a Box": (
        5,
        entry("action_space", **{":type:": "<class 'gym.spaces.discrete.Discrete'>"}),
    ),
    "its actions are from .* the task's": (5, entry("action_space", low="[-1. -2.]")),
    "trained with 3 actions where the task has 2": (5, entry("action_space", low="[0. 0. 0.]", high="[1. 1. 1.]")),
    "is an image": (5, entry("observation_space", _shape=[3, 64, 64], dtype="uint8")),
    "its activation <class 'mine.Act'> is not": (
        5,
        lambda data: data.update(policy_kwargs={"activation_fn": "<class 'mine.Act'>"}),
    ),
    "its features extractor .*Mine": (
        5,
        lambda data: data.update(policy_kwargs={"features_extractor_class": "<class 'x.Mine'>"}),
    ),
    "its description of the policy is damaged": (5, lambda data: data.update(policy_kwargs=["net_arch"])),
    "its weights are not those": (5, lambda data: data.update(policy_kwargs={"net_arch": [3]})),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message, tmp_path):
    model, _ = model_of("PPO", policy_kwargs={"net_arch": [8]})
    size, change = REFUSED[message]
    model.save(tmp_path / "x.zip")
    rewritten(tmp_path / "x.zip", change)
    with pytest.raises(BadFile, match=message):
        read_original(tmp_path / "x.zip", size, ACTIONS, None)


def test_more_that_is_refused(tmp_path, monkeypatch):
    model, statistics = model_of(
        "TQC", statistics={}, policy_kwargs={"net_arch": [8], "activation_fn": lambda: nn.LeakyReLU(0.5)}
    )
    with pytest.raises(BadInput, match="LeakyReLU"):
        teacher_from_model(model, None)
    model, _ = model_of("TQC", policy_kwargs={"net_arch": [8]})
    path = tmp_path / "x.zip"
    model.save(path)
    statistics.obs_rms.mean = np.zeros(6)
    statistics.save(tmp_path / "other.pkl")
    with pytest.raises(BadFile, match="statistics of 6 entries, where the policy has 5"):
        read_original(path, 5, ACTIONS, tmp_path / "other.pkl")
    with pytest.raises(BadFile, match="not a VecNormalize file"):
        read_original(path, 5, ACTIONS, path)
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(BadInput, match="contrib"):
        read_original(path, 5, ACTIONS, None)
    rewritten(path, lambda data: None, model.policy.state_dict() | {"critic.x": None})
    with pytest.raises(BadFile, match="a weight is no tensor"):
        read_original(path, 5, ACTIONS, None)


def test_statistics_are_found_by_the_usual_names(tmp_path):
    def found(checkpoint):
        path = find_statistics(tmp_path / checkpoint, "HalfCheetah-v5")
        return path and str(path.relative_to(tmp_path))

    assert found("a.zip") is None
    for folder in ("HalfCheetah-v3", "Hopper-v5"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vecnormalize.pkl").touch()
    assert found("best_model.zip") == "HalfCheetah-v3/vecnormalize.pkl"
    (tmp_path / "a_vecnormalize.pkl").touch()
    (tmp_path / "rl_vecnormalize_200_steps.pkl").touch()
    assert found("a.zip") == "a_vecnormalize.pkl"
    assert found("rl_200_steps.zip") == "rl_vecnormalize_200_steps.pkl"
    (tmp_path / "vec_normalize.pkl").touch()
    with pytest.raises(BadInput, match="several statistics"):
        found("best_model.zip")


REACHER = TASKS["Reacher"]


def test_a_teacher_is_written_with_its_proof_or_not_at_all(tmp_path, monkeypatch, capsys):
    spaces = gym.spaces.Box(-np.inf, np.inf, (10,), np.float64), gym.spaces.Box(-1, 1, (2,), np.float32)
    model, _ = model_of("A2C", *spaces, policy_kwargs=SMALL)
    path, output = tmp_path / "a2c.zip", tmp_path / "out" / "teacher.pt"
    model.save(path)

    def off(*arguments):
        teacher = teacher_from_model(*arguments)
        with torch.no_grad():
            teacher.mu.bias += 1e-3
        return teacher

    monkeypatch.setattr(SaveWeights, "teacher_from_model", off)
    with pytest.raises(BadFile, match="actions differ"):
        save_weights(path, REACHER, output)
    assert not output.parent.exists()
    monkeypatch.undo()
    with pytest.raises(BadInput, match="would be read and replaced"):
        save_weights(path, REACHER, path)
    save_weights(path, REACHER, output)
    assert "statistics  none" in capsys.readouterr().out
    proof, teacher = load_tensors(output, "teacher")["proof"], get_Teacher_model(output, task="Reacher")
    assert (proof["algorithm"], proof["file"], proof["episodes"], len(proof["states"])) == ("A2C", "a2c.zip", 10, 256)
    assert proof["return"] == pytest.approx(proof["original_return"], rel=1e-3)
    assert proof_error(output) < 1e-5
    seen = proof["states"].double().numpy()  # the statistics are those of the states that it visits
    np.testing.assert_allclose(teacher.statistics.mean, seen.mean(0), atol=3 * (seen.std(0).max() / 16))
    assert normalization(None, spaces[0])["mean"] == teacher.arguments["mean"]


def test_the_shipped_teacher_acts_as_its_stable_baselines3_checkpoint():
    path = SHIPPED_TEACHER.with_name("sac.zip")
    assert byte_code(path) == []
    actions = gym.spaces.Box(-2, 2, (7,), np.float32)
    original = read_original(path, 23, actions, find_statistics(path, "Pusher-v5"))
    seen = np.random.default_rng(0).normal(0, 0.5, (500, 23)).astype(np.float32)
    seen[:, 17:] = np.array([0.45, -0.05, -0.275, 0.45, -0.05, -0.323], np.float32)
    for teacher in (get_Teacher_model(), teacher_from_model(original, original.statistics)):
        np.testing.assert_allclose(teacher.act({"State": seen}), original.act({"State": seen}), atol=1e-6)
    assert proof_error(SHIPPED_TEACHER) is None
    model = stable_baselines3.SAC.load(path)  # as any Python does
    assert model.predict(original.statistics.normalize_obs(seen), deterministic=True)[0].shape == (500, 7)
