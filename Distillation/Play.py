"""Evaluate a student or a teacher on given seeds, beside the shipped teacher and standing still."""

import json
import sys
from pathlib import Path
from typing import Any

from Distillation.Utils import BadInput, OneLineParser


def load_policy(path: Path, device: Any) -> tuple[Any, dict[str, Any]]:
    """Load a teacher, a student, or the student in a run's checkpoint; returns it and its card.

    Raises:
        BadFile: it is none of them.
    """
    from Algorithm.Checkpoint import load_checkpoint
    from Models.Base_Model import ActorCritic, file_format
    from Models.Model_Pusher import file_task, get_Teacher_model, load_student, student_card

    kind = file_format(path)
    if kind == "teacher":
        return get_Teacher_model(path, device), {"task": file_task(path)}
    if kind == "checkpoint":
        content = load_checkpoint(path)
        student = ActorCritic(**content["student"]["arguments"])
        student.load_state_dict(content["trainer"]["student"])
        return student.to(device).eval(), content["student"]["card"]
    return load_student(path, device), student_card(path)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = OneLineParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, help="a teacher, a student, or a run's last.pt")
    parser.add_argument("--seeds", default="1900-1999", help="for example 1900-1999 or 1900,1907 (default: 1900-1999)")
    parser.add_argument("--video", type=Path, help="write an mp4 of the first three episodes")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--stochastic", action="store_true", help="sample actions instead of taking the mean")
    parser.add_argument("--teacher", type=Path, help="whom to compare with; the shipped teacher unless given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--num_workers", type=int, default=0, help="processes; 0: one for each core (default: 0)")
    arguments = parser.parse_args(argv)

    from Enviroment.GL import NoGLBackend, choose_gl_backend

    try:
        choose_gl_backend()
    except NoGLBackend as error:
        parser.error(str(error))
    from Algorithm.Test_model import Recording, ZeroPolicy, evaluate, figures, parse_seeds, table
    from Algorithm.Video import write_video
    from Enviroment.Tasks import TASKS
    from Enviroment.Utils import make_vector_env
    from Models.Base_Model import BadDevice, BadFile, resolve_device, resolve_precision
    from Models.Model_Pusher import get_Teacher_model

    env = None
    try:
        try:
            seeds = parse_seeds(arguments.seeds)
        except ValueError as error:
            raise BadInput(f"--seeds: {error}") from None
        if arguments.num_workers < 0:
            raise BadInput(f"--num_workers {arguments.num_workers}: 0 (one for each core) or more is needed")
        if arguments.video is not None and arguments.video.suffix != ".mp4":
            raise BadInput(f"--video {arguments.video}: a file name ending in .mp4 is needed")
        device = resolve_device(arguments.device)
        policy, card = load_policy(arguments.checkpoint, device)
        if card.get("task") not in TASKS:
            raise BadInput(f"{arguments.checkpoint}: of an unknown task; {', '.join(TASKS)} are known")
        task = TASKS[card["task"]]
        teacher = get_Teacher_model(arguments.teacher, device, task.name)
        sees = "Frame" in policy.inputs
        if sees:
            policy.precision = resolve_precision(card.get("precision", "auto"), device)
        quality = card.get("render", {}).get("quality", "fast")
        frames = sees or arguments.video is not None
        env = make_vector_env(task, min(len(seeds), 20), arguments.num_workers, frames=frames, render_quality=quality)
        recording = Recording() if arguments.video else None
        results = {
            "policy": evaluate(
                policy,
                env,
                task,
                seeds,
                teacher=teacher,
                deterministic=not arguments.stochastic,
                recording=recording,
            ),
            "teacher": evaluate(teacher, env, task, seeds),
            "zero": evaluate(ZeroPolicy(env.single_action_space), env, task, seeds),
        }
        guided = evaluate(policy, env, task, seeds, teacher=teacher, driver=teacher)
        report = {name: figures(result, results["zero"], results["teacher"]) for name, result in results.items()}
        report["policy"]["action_accuracy_on_teacher_states"] = float(guided.action_accuracy.mean())
        if recording is not None:
            write_video(arguments.video, task, seeds, recording)
    except (BadInput, BadFile, BadDevice, NoGLBackend) as error:
        parser.error(str(error))
    finally:
        if env is not None:
            env.close()
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, **report}, indent=2))
        return
    print(f"{len(seeds)} episodes, {'stochastic' if arguments.stochastic else 'deterministic'}\n{table(report)}")
    row = report["policy"]
    print(
        f"action accuracy {row['action_accuracy']:.4f} on the states it visits, "
        f"{row['action_accuracy_on_teacher_states']:.4f} on the teacher's; entropy {row['entropy']:.2f} nats"
    )
    if arguments.video:
        print(f"video {arguments.video}")


if __name__ == "__main__":
    main(sys.argv[1:])
