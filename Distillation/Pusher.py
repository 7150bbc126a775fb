"""Distil the Pusher teacher into a student: one command line, one experiment, one folder."""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path

from Distillation.Utils import BadInput, ExperimentConfig, OneLineParser, check_folder, describe, run_folder, write_json

METHODS = {
    "PPD": "proximal policy distillation",
    "C_data": "collect a dataset",
    "Tdistillation": "teacher distillation",
    "Sdistillation": "student distillation",
    "BC_phase": "behavioural cloning",
    "Dagger_phase": "DAgger",
}
MODES = ("State", "ImpaalaSmall", "ImpaalaMid", "ImpaalaBig")


def parse(argv: list[str] | None = None) -> tuple[ExperimentConfig, argparse.Namespace]:
    """Read the command line; bad input leaves with one line and status 2."""
    defaults = {field.name: field.default for field in dataclasses.fields(ExperimentConfig)}
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    method = parser.add_argument_group("method (exactly one)").add_mutually_exclusive_group(required=True)
    for name, what in METHODS.items():
        help_text = what if name == "PPD" else f"{what} (not built yet)"
        method.add_argument(f"--{name}", dest="method", action="store_const", const=name, help=help_text)

    def add(name: str, help_text: str, **options) -> None:
        default = defaults[name]
        options.setdefault("type", type(default))
        parser.add_argument(f"--{name}", default=default, help=f"{help_text} (default: {default})", **options)

    add("mode", "student architecture", choices=MODES)
    add("PPD_parameter", "lambda: what imitation weighs against reward in PPD")
    add("run_index", "chooses the run's seeds, 0 to 5", choices=range(6), metavar="{0..5}")
    add("device", "auto (cuda if there is one), cpu, cuda or cuda:N")
    add("precision", "of the backbone; auto: bf16 where the hardware has it", choices=("auto", "fp32", "bf16"))
    add("optimization_steps", "gradient updates to do")
    add("test_every", "updates between tests")
    add("episodes", "test episodes on each of the two sets of seeds")
    add("num_envs", "training environments")
    add("num_workers", "processes that step them; 0: one for each core")
    add("render_quality", "of the frames", choices=("fast", "full"))
    add("grid", "rows and columns the backbone pools to", type=int, nargs=2, metavar=("ROWS", "COLUMNS"))
    add("rollout_steps", "steps of every environment between updates")
    add("minibatch_size", "samples in an update")
    add("epochs", "passes over a rollout")
    add("learning_rate", "Adam's")
    add("gamma", "discount")
    add("gae_lambda", "lambda of the advantage estimate")
    add("clip", "PPO's clip range, of ratio and value")
    add("value_coefficient", "weight of the value loss")
    add("entropy_coefficient", "weight of the entropy bonus")
    add("max_grad_norm", "gradients are clipped to this norm")
    add("teacher", "teacher file; the shipped one unless given", type=str)
    add("results_dir", "where runs are written; relative to the repository")
    add("run_name", "folder of the run, instead of one made from the settings", type=str)
    add("wandb_mode", "auto: online when logged in, else offline", choices=("auto", "online", "offline", "disabled"))
    add("wandb_entity", "W&B entity, else WANDB_ENTITY", type=str)
    add("wandb_project", "W&B project, else WANDB_PROJECT, else policy-distillation", type=str)
    parser.add_argument("--resume", action="store_true", help="continue the run of this name where it was cut off")
    parser.add_argument("--overwrite", action="store_true", help="replace the run of this name")
    arguments = parser.parse_args(argv)
    try:
        if arguments.method != "PPD":
            raise BadInput(f"--{arguments.method}: not built yet; --PPD is")
        config = ExperimentConfig(**{name: getattr(arguments, name) for name in defaults})
        config = dataclasses.replace(config, grid=(config.grid[0], config.grid[1]))
        config.check()
    except BadInput as error:
        parser.error(str(error))
    return config, arguments


def run(config: ExperimentConfig, resume: bool, overwrite: bool) -> None:
    """Run an experiment from its settings to its summary.

    Raises:
        BadInput, BadDevice, BadFile, NoGLBackend: before anything is written.
    """
    from Enviroment.GL import choose_gl_backend

    choose_gl_backend()  # the closing video needs it, whatever the student sees
    # Imported late: --help and bad flags answer at once, and environment workers, which import this file, stay small.
    from Algorithm.Checkpoint import load_checkpoint
    from Algorithm.Logger import RunLogger, start_wandb
    from Algorithm.PPD import PPD
    from Algorithm.seeds import ID_TEST_SEEDS, OD_TEST_SEEDS, training_seed
    from Algorithm.Test_model import Recording, StudentTest, table
    from Algorithm.Training import train
    from Algorithm.Video import write_video
    from Distillation.Plot import draw_curve
    from Enviroment.Tasks import TASKS
    from Enviroment.Utils import make_vector_env
    from Models.Base_Model import resolve_device, resolve_precision
    from Models.Model_Pusher import SHIPPED_TEACHER, get_Teacher_model, make_student

    task = TASKS["Pusher"]
    frames = config.mode != "State"
    device = resolve_device(config.device)
    config = dataclasses.replace(config, device=str(device), precision=resolve_precision(config.precision, device))
    teacher_path = Path(config.teacher) if config.teacher else SHIPPED_TEACHER
    teacher = get_Teacher_model(teacher_path, device, task.name)
    folder = run_folder(config, task.name)
    camera = dataclasses.asdict(task.camera) | {"frame_size": task.frame_size, "stack": task.stack}
    description = describe(config, task.name, teacher_path, camera)
    check_folder(folder, description, resume, overwrite)
    checkpoint = load_checkpoint(folder / "checkpoints" / "last.pt") if resume else None
    finished = folder / "summary.json"
    if checkpoint and finished.is_file() and checkpoint["trainer"]["counters"][0] >= config.optimization_steps:
        print(f"the run in {folder} is finished; a larger --optimization_steps would continue it")
        print(table(json.loads(finished.read_text())["OD"]))
        return
    if not resume and folder.exists():
        shutil.rmtree(folder)
    finished.unlink(missing_ok=True)
    write_json(folder / "config.json", description)

    print(
        f"PPD: {config.mode} on {device} ({config.precision}), {config.optimization_steps} updates, run {folder}",
        flush=True,
    )
    started = time.monotonic()
    sets = {
        "ID": range(ID_TEST_SEEDS[0], ID_TEST_SEEDS[0] + config.episodes),
        "OD": range(OD_TEST_SEEDS[0], OD_TEST_SEEDS[0] + config.episodes),
    }
    seed = training_seed("training", config.run_index)
    env = test_env = logger = None
    try:
        env = make_vector_env(task, config.num_envs, config.num_workers, seed, frames, config.render_quality)
        test_env = make_vector_env(task, 2 * config.episodes, config.num_workers, None, frames, config.render_quality)

        import torch

        torch.manual_seed(seed)
        student = make_student(
            config.mode,
            env.single_observation_space,
            env.single_action_space,
            task.proprioception,
            teacher.statistics,
            task.stack,
            config.grid,
        ).to(device)
        student.precision = config.precision
        trainer = PPD(student, env, task, config, seed, teacher=teacher, coefficient=config.PPD_parameter)
        test = StudentTest(test_env, task, teacher, sets)
        wandb_run = start_wandb(
            config.wandb_mode,
            folder,
            description,
            group=f"{config.method}_{config.mode}",
            name=config.name,
            entity=config.wandb_entity,
            project=config.wandb_project,
        )
        logger = RunLogger(folder, config.optimization_steps, wandb_run, checkpoint["rows"] if checkpoint else 0)
        seconds = train(
            trainer,
            test,
            logger,
            folder,
            {key: description[key] for key in ("task", "mode", "method", "precision", "render")},
            optimization_steps=config.optimization_steps,
            test_every=config.test_every,
            resume=checkpoint,
        )

        recording = Recording()
        report = test.report(student, recording)
        video = folder / "videos" / "final_OD.mp4"
        write_video(video, task, [*sets["ID"], *sets["OD"]], recording, first=config.episodes)
        curve = draw_curve(folder)
        summary = {
            "optimization_steps": trainer.optimization_steps,
            "samples_collected": trainer.samples_collected,
            "training_seconds": round(seconds, 1),
            **report,
        }
        write_json(finished, summary)
        logger.summarize(summary, video)
        print(f"\n{config.episodes} episodes on seeds it never trained on (OD), deterministic:\n{table(report['OD'])}")
        print(f"\nvideo    {video}\ncurve    {curve}\nstudent  {folder / 'checkpoints' / 'last.pt'}")
        print(f"{(time.monotonic() - started) / 60:.1f} minutes in all")
    finally:
        for thing in (logger, env, test_env):
            if thing is not None:
                thing.close()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    config, arguments = parse(argv)
    from Enviroment.GL import NoGLBackend
    from Models.Base_Model import BadDevice, BadFile

    try:
        run(config, arguments.resume, arguments.overwrite)
    except (BadInput, BadDevice, BadFile, NoGLBackend) as error:
        print(f"Pusher.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "stopped; the same command with --resume (in place of --overwrite) goes on from the last checkpoint",
            file=sys.stderr,
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
