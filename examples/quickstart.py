"""The pieces from Python: collect the teacher's episodes, clone it into a student that sees, evaluate the student."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository, whichever is installed

import tempfile
from contextlib import closing
from pathlib import Path

from Algorithm.BehaviouralCloning import BehaviouralCloning
from Algorithm.CollectDataset import collect_dataset
from Algorithm.Config import CloningConfig
from Algorithm.Dataset import open_dataset
from Algorithm.Test_model import Evaluation, evaluate
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Models.Model_Pusher import get_Teacher_model, make_student


def main(mode: str = "ImpaalaMid", samples: int = 10_000, updates: int = 1_000) -> Evaluation:
    """Collect, clone, evaluate."""
    task, teacher = TASKS["Pusher"], get_Teacher_model()
    with closing(make_world(task, num_envs=20)) as world, tempfile.TemporaryDirectory() as place:
        collect_dataset(Path(place) / "dataset", world, teacher, samples)
        dataset = open_dataset(Path(place) / "dataset")
        made_for = world.spaces, world.action_space, task.proprioception, teacher.statistics
        student = make_student(mode, *made_for, task.stack, stride=task.stack_stride)
        config = CloningConfig(loss_type="KL", optimization_steps=updates)
        trainer = BehaviouralCloning(student, dataset.fields, config, seed=0)
        trainer.start()
        while trainer.optimization_steps < updates:
            print(trainer.optimization_steps, trainer.step(budget=updates)["training/loss"])
        return evaluate(student, world, task, seeds=range(1900, 1920), teacher=teacher)


if __name__ == "__main__":  # the environments live in worker processes, which import this file
    result = main()
    print(f"return {result.returns.mean():.1f}, success {result.success.mean():.2f}, {len(result.seeds)} episodes")
