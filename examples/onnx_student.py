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
if "frames" not in card["inputs"]:
    sys.exit(
        f"{sys.argv[1]} sees no frames: give it entries {card['inputs']['state']['state_entries']} of the observation"
    )
view, steps = card["render"], card["inputs"]["frames"]["steps"]
env = gymnasium.make(card["env_id"])
simulation: Any = env.unwrapped
for name, value in view["vis_quality"].items():
    setattr(simulation.model.vis.quality, name, value)
renderer = mujoco.Renderer(simulation.model, *view["frame_size"])
renderer.scene.flags[view["flags_off"]] = 0
camera = mujoco.MjvCamera()
camera.lookat, camera.distance = view["lookat"], view["distance"]
camera.azimuth, camera.elevation = view["azimuth"], view["elevation"]


def frame() -> np.ndarray:
    """Draw the scene as the student knows it."""
    renderer.update_scene(simulation.data, camera)
    for eye in renderer.scene.camera:  # only the crop is drawn
        half, (top, bottom), (left, right) = eye.frustum_top / view["view"], view["rows"], view["columns"]
        eye.frustum_top, eye.frustum_bottom = half * (view["view"] - 2 * top), half * (view["view"] - 2 * bottom)
        eye.frustum_center, eye.frustum_width = half * (left + right - view["view"]), half * (right - left)
    return cv2.cvtColor(renderer.render(), cv2.COLOR_RGB2GRAY)


state, _ = env.reset(seed=int(sys.argv[2]) if len(sys.argv) > 2 else None)
frames = deque([frame()] * (1 - steps[0]), maxlen=1 - steps[0])
total, done = 0.0, False
while not done:
    stack = np.stack([frames[step - 1] for step in steps])
    own = state[card["inputs"]["proprioception"]["state_entries"]].astype(np.float32)
    (action,) = session.run(None, {"frames": stack[None], "proprioception": own[None]})
    state, reward, terminated, truncated, _ = env.step(action[0])
    total, done = total + float(reward), terminated or truncated
    frames.append(frame())
print(f"return {total:.2f}")
