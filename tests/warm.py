"""Start Python programs without the seconds that importing PyTorch takes: a process that has imported it forks for each.

A fork has its own pid, files, folder, environment, session and signals, runs what it is given as Python would, and ends as
the interpreter ends. Scripts that it starts itself with `subprocess` are forked as well; anything else, such as environment
workers, is started as ever. What is about starting up (what is imported when, what the environment changes) needs
`subprocess` instead.

The first process of the tests starts the server (`start`), all of them ask it (`Popen`, `run`). Linux only.
"""

import array
import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("Common", "Enviroment", "Models", "Algorithm", "Distillation", "Train_Teacher_Pusher")
LATE = ("torch._dynamo", "torch.distributed.run", "torch.distributed.elastic.agent.server.local_elastic_agent")
LATE += ("scipy.stats", "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg")
LATE += ("imageio.v2", "imageio_ffmpeg", "minari", "stable_baselines3")
ADDRESS = "POLICY_TESTS_SERVER"  # environment variable
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
GL = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_GL_TRIED")


# The tests' side


def start() -> Callable[[], None]:
    """Start the server, which ends with this process; returns what ends it before."""
    listener = socket.socket(socket.AF_UNIX)
    name = f"policy-tests-{os.getpid()}-{time.time_ns()}"
    listener.bind(f"\0{name}")
    listener.listen(64)  # who asks before it is ready waits
    lifeline, ours = os.pipe()
    server = subprocess.Popen(
        [sys.executable, __file__, str(listener.fileno())],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=lifeline,
        stdout=subprocess.DEVNULL,
        pass_fds=[listener.fileno()],
        start_new_session=True,
    )
    os.close(lifeline)
    os.set_inheritable(ours, False)
    listener.close()
    os.environ[ADDRESS] = name

    def stop() -> None:
        os.close(ours)
        server.wait()

    return stop


class Popen(subprocess.Popen):
    """`subprocess.Popen` of a list of arguments that begins with this Python and a script, or `-m` and a module.

    Args:
        args: the arguments.
        file_size: no file may grow beyond so many bytes, as `ulimit -f` has it.
        without: modules and names in them; functions that write what no test reads make an empty file instead.
        steps: so many has an episode of the repository's tasks, also in what the script itself starts; None for their own.
    """

    def __init__(self, args, *, file_size=None, without=(), steps=20, **settings):
        self._file_size, self._steps = file_size, steps
        self._without = [(module.__name__, name) for module, name in without]
        super().__init__(list(map(str, args)), **settings)

    def _execute_child(self, *arguments, **named):
        call = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments, **named).arguments
        files = [call["p2cread"], call["c2pwrite"], call["errwrite"]]
        request = {
            "args": call["args"][1:],
            "cwd": str(call["cwd"] or Path.cwd()),
            "env": dict(call["env"] or os.environ),
            "session": call["start_new_session"],
            "file_size": self._file_size,
            "without": self._without,
            "steps": self._steps,
        }
        assert call["args"][0] == sys.executable, call["args"]
        assert call["preexec_fn"] is None
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(f"\0{os.environ[ADDRESS]}")
        content = json.dumps(request).encode()
        descriptors = array.array("i", [file if file >= 0 else number for number, file in enumerate(files)])
        self._server.sendmsg([len(content).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        self._server.sendall(content)
        self.pid = int.from_bytes(_receive(self._server, 4), "big")
        self._child_created = True
        self._close_pipe_fds(*(call[name] for name in PIPES))

    def _internal_poll(self, _deadstate=None, **_):
        return self._ended(0)

    def _wait(self, timeout):
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, timeout):
        if self.returncode is None and select.select([self._server], [], [], timeout)[0]:
            status = int.from_bytes(_receive(self._server, 4), "big")
            self.returncode = os.waitstatus_to_exitcode(status)
            self._server.close()
        return self.returncode


def run(args, *, timeout=280, **settings) -> subprocess.CompletedProcess:
    """`subprocess.run` with captured text, forked."""
    with Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _receive(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise ConnectionError("the server of the tests has ended")
        content += part
    return content


# The server's side


def _import_everything() -> None:
    """Import what commands import. MuJoCo must not open a display, which a fork cannot use."""
    given = {name: os.environ[name] for name in GL if name in os.environ}
    os.environ["MUJOCO_GL"] = "disable"
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            with contextlib.suppress(Exception):  # its tests say what is wrong with it
                importlib.import_module(module)
    for module in LATE:
        importlib.import_module(module)
    del os.environ["MUJOCO_GL"]
    os.environ.update(given)
    from Enviroment.GL import find_gl_backend

    find_gl_backend.cache_clear()
    find_gl_backend()


def _serve(listener: socket.socket) -> dict | None:
    """Fork for every request, and tell how each ends; returns in the fork what it is to do, in the server at the end."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(wake)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, awake, 0], [], [])
        if 0 in ready:  # the tests have ended
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            return None
        if awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(awake, 4096)
            while children:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                with children.pop(pid) as connection, contextlib.suppress(OSError):
                    connection.sendall(status.to_bytes(4, "big"))
        if listener in ready:
            connection, _ = listener.accept()
            size, ancillary, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(12))
            files = array.array("i", ancillary[0][2]).tolist()
            request = json.loads(_receive(connection, int.from_bytes(size, "big")))
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _take(files)
                for each in (listener, connection, *children.values()):
                    each.detach()  # it is closed already
                weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # such as temporary folders of modules
                return request
            for file in files:
                os.close(file)
            children[pid] = connection
            with contextlib.suppress(OSError):
                connection.sendall(pid.to_bytes(4, "big"))


def _obey(
    args: list, cwd: str, env: dict, session: bool, file_size: int | None, without: list, steps: int | None
) -> None:
    """Do in a fork what was asked for."""
    if session:
        os.setsid()
    _prepare(args, cwd, env, file_size)
    _leave_out(without)
    _shorten_episodes(steps)
    _run(args)


def _take(files: list[int]) -> None:
    """Take some files as standard input, output and error, and close all others."""
    kept = [os.dup(file) if file < 3 else file for file in files]
    for number, file in enumerate(kept):
        os.dup2(file, number)
    os.closerange(3, 4096)


def _prepare(args: list[str], cwd: str | None, env: dict[str, str] | None, file_size: int | None = None) -> None:
    """Make a process that was forked one that was just started."""
    import numpy as np

    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        asked_for = {name: env[name] for name in GL if name in env}
        ours = {name: os.environ[name] for name in GL if name in os.environ}
        os.environ.clear()
        os.environ.update(ours | env)
        if not asked_for.items() <= ours.items():
            from Enviroment.GL import find_gl_backend

            find_gl_backend.cache_clear()
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    np.random.seed()  # noqa: NPY002
    subprocess.Popen._execute_child = _fork_or_execute  # type: ignore[method-assign]
    if args[0] == "-u":
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]


def _empty(*arguments, **_):
    path = next(argument for argument in arguments if isinstance(argument, Path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _leave_out(functions: list[tuple[str, str]]) -> None:
    for module, name in functions:
        getattr(sys.modules[module], name)  # it has to be there
        setattr(sys.modules[module], name, _empty)


def _shorten_episodes(steps: int | None) -> None:
    from Enviroment.Tasks import TASKS

    if steps is None:
        return
    for name, task in TASKS.items():
        if not name.endswith("Memory"):  # those hold the arm for some steps, and need more
            TASKS[name] = replace(task, max_episode_steps=steps)


def _run(args: list[str]) -> None:
    """Run a script or a module."""
    args = args[args[0] == "-u" :]
    if args[0] == "-m":
        sys.argv, sys.path[0] = args[1:], os.getcwd()
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = args, os.path.dirname(os.path.abspath(args[0]))
        runpy.run_path(args[0], run_name="__main__")


_execute = subprocess.Popen._execute_child


def _fork_or_execute(self, *arguments, **named):
    """Fork for a script of this Python, as a child of this very process; leave all else to `subprocess`."""
    call = inspect.signature(_execute).bind(self, *arguments, **named).arguments
    words = [os.fspath(word) for word in call["args"]] if not isinstance(call["args"], str | bytes) else [""]
    script = words[1 + (words[1:2] == ["-u"]) :][:1]
    ours = bool(script) and script[0].endswith(".py") and "site-packages" not in script[0]
    if words[0] != sys.executable or not ours or call["pass_fds"]:
        return _execute(self, *arguments, **named)
    sys.stdout.flush(), sys.stderr.flush()
    files = [call["p2cread"], call["c2pwrite"], call["errwrite"]]
    self.pid = os.fork()
    if not self.pid:
        _be_child(words[1:], call, [file if file >= 0 else number for number, file in enumerate(files)])
    self._child_created = True
    self._close_pipe_fds(*(call[name] for name in PIPES))
    return None


def _be_child(words: list[str], call: dict, files: list[int]) -> None:
    """Run a script in a process that was forked in the middle of another program, and end as Python would."""

    def begin() -> None:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # the other program's
        if call["start_new_session"]:
            os.setsid()
        _take(files)
        if call["preexec_fn"]:
            call["preexec_fn"]()
        _prepare(words, call["cwd"], call["env"] and dict(call["env"]))
        _run(words)

    _to_the_end(begin)


def _to_the_end(program: Callable[[], None]) -> None:
    """Call what a process is for, and end it as Python would, but for taking every module apart, which takes half a second."""
    status, interrupted = 1, False
    try:
        program()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        interrupted = True
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
        if interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(status & 255)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not the tests, which have the rooms' names
    _import_everything()
    gc.collect()
    gc.freeze()  # or forks would copy what they only look through
    _request = _serve(socket.socket(fileno=int(sys.argv[1])))
    if _request is not None:
        _to_the_end(lambda: _obey(**_request))
