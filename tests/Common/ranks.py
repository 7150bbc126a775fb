"""What every rank does: a rollout in its environments, and the gradient of a minibatch, by two methods."""

import glob

import torch

from Algorithm.Config import OnlineDistillationConfig, PPDConfig, TeacherNoiseConfig
from Algorithm.PPD import PPD
from Algorithm.StudentTeacher_distillation import TeacherDistillation
from Common import Parallel
from Enviroment.Tasks import TASKS
from Enviroment.Utils import make_world
from Models.Model_Pusher import get_Teacher_model
from tests.helpers import student_for

CONFIGS = {
    PPD: PPDConfig(num_envs=4, rollout_steps=8, minibatch_size=16),
    TeacherDistillation: OnlineDistillationConfig(num_envs=4, rollout_steps=8, minibatch_size=16),
}


def build(method, count=2):
    """A trainer with this rank's share of 4 environments."""
    task, teacher = TASKS["Pusher"], get_Teacher_model()
    env = make_world(task, 4 // count, 1)
    noise = {"noise": TeacherNoiseConfig()} if method is TeacherDistillation else {}
    student = student_for(env, task, teacher.statistics)
    trainer = method(student, env, CONFIGS[method], 600_000, teacher=teacher, **noise)
    trainer.start()
    return trainer


def threads():
    """How many threads gloo has in this process."""
    return sum(open(name).read() == "pt_gloo_runloop\n" for name in glob.glob("/proc/self/task/*/comm"))


def differentiate(method, place):
    """Write this rank's batch and the gradient of both ranks."""
    trainer = build(method)
    trainer.collect_rollout()
    trainer.compute_targets()
    batch = trainer.rollout.minibatch(torch.arange(Parallel.rank(), 16, 2))
    torch.manual_seed(1)
    trainer.learner._loss(batch).total.backward()
    gradients = {name: weight.grad for name, weight in trainer.student.named_parameters()}
    content = {"batch": vars(batch), "gradients": gradients, "background": trainer.student.background("Frame")}
    content["batch"]["teacher"] = vars(batch.teacher)
    content["scaled"] = trainer.normalizer.state_dict()["moments"]
    torch.save(content, f"{place}/{method.__name__}{Parallel.rank()}.pt")
    trainer.world.close()


def main(place):
    """Once ranks part, only the last DDP's threads are left, idle: one that is busy when Python ends would abort the rank."""
    with Parallel.joined(torch.device("cpu")):
        for method in CONFIGS:
            differentiate(method, place)
        together = threads()
    assert (together, threads()) == (6, 2), (together, threads())
