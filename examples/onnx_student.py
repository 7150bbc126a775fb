"""Run an exported student that sees in plain Gymnasium: no PyTorch, nothing of this repository.

pip install "gymnasium[mujoco]" onnxruntime opencv-python
MUJOCO_GL=egl python onnx_student.py student.onnx 1900
"""

import json
import sys
from collections import deque
from typing import Any

import cv2
import gymnasium
import mujoco
import numpy as np
import onnxruntime

if len(sys.argv) < 2:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1])
card = json.loads(session.get_modelmeta().custom_metadata_map["card"])
eyes = {name: spec for name, spec in card["inputs"].items() if "steps" in spec}
if not eyes:
    sys.exit(
        f"{sys.argv[1]} sees no frames: give it entries {card['inputs']['state']['state_entries']} of the observation"
    )
if any({"name", "follow"} & spec["camera"].keys() for spec in eyes.values()):
    sys.exit(f"{sys.argv[1]} sees by a camera that may move: Enviroment/Renderer.py draws the floor below it")
env = gymnasium.make(card["env_id"])
simulation: Any = env.unwrapped
for name, value in card["render"]["vis_quality"].items():
    setattr(simulation.model.vis.quality, name, value)
renderers = {name: mujoco.Renderer(simulation.model, *spec["camera"]["size"]) for name, spec in eyes.items()}


def frame(name: str) -> np.ndarray:
    """Draw the scene as the student knows it from one of its cameras."""
    view, renderer = eyes[name]["camera"], renderers[name]
    camera = mujoco.MjvCamera()
    camera.lookat, camera.distance = view["lookat"], view["distance"]
    camera.azimuth, camera.elevation = view["azimuth"], view["elevation"]
    renderer.scene.flags[card["render"]["flags_off"]] = 0
    renderer.update_scene(simulation.data, camera)
    for eye in renderer.scene.camera:  # only the crop is drawn
        half, (top, bottom), (left, right) = eye.frustum_top / view["view"], view["rows"], view["columns"]
        eye.frustum_top, eye.frustum_bottom = half * (view["view"] - 2 * top), half * (view["view"] - 2 * bottom)
        eye.frustum_center, eye.frustum_width = half * (left + right - view["view"]), half * (right - left)
    if view["frames"] == "depth":
        renderer.enable_depth_rendering()
        near, far = view["depth_range"]
        return np.rint((renderer.render() - near) * 255 / (far - near)).clip(0, 255).astype(np.uint8)
    picture = renderer.render()
    return picture.transpose(2, 0, 1) if view["frames"] == "rgb" else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


state, _ = env.reset(seed=int(sys.argv[2]) if len(sys.argv) > 2 else None)
frames = {
    name: deque([frame(name)] * (1 - spec["steps"][0]), maxlen=1 - spec["steps"][0]) for name, spec in eyes.items()
}
memory = {}  # of a recurrent student; zeros at an episode's first step
if "memory" in card["inputs"]:
    memory["memory"] = np.zeros((1, *card["inputs"]["memory"]["shape"][1:]), np.float32)
total, done = 0.0, False
while not done:
    inputs = memory | {
        name: np.stack([frames[name][step - 1] for step in spec["steps"]])[None] for name, spec in eyes.items()
    }
    for name, spec in card["inputs"].items():
        if "state_entries" in spec:
            inputs[name] = state[None, spec["state_entries"]].astype(np.float32)
    action, *after = session.run(None, inputs)
    memory = dict(zip(memory, after))
    state, reward, terminated, truncated, _ = env.step(action[0])
    total, done = total + float(reward), terminated or truncated
    for name in eyes:
        frames[name].append(frame(name))
print(f"return {total:.2f}")
