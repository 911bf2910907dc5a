"""Runs programs as forks of a process that has imported torch, which costs 2 seconds each time.

`forks.py FOLDER [MODULES]` makes a socket and the commands `python`, `hfclip` and `ray_worker` in
FOLDER, and imports the modules. Its standard input is a named pipe, and it serves until no process
has that pipe open for writing. So all test processes share one server, and it ends with them
however they end. `python` takes `-c CODE`, `-m MODULE` or a script, and runs it with its own
arguments, environment, working directory, standard streams, SIGINT and exit status. `hfclip` runs
the installed command, and `ray_worker` a worker of Ray. Unless MODULES import them, each program
imports hfclip and huggingface_hub itself, because they read the environment when they are imported.
Of Python's settings, programs see PYTHONPATH and PYTHONWARNINGS, which may be ignore or error.
SIGKILL for a command also ends its program, a moment later: wait until its streams close. A test
of a start needs a real process. One of memory measures only what the program adds to its own.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, NoReturn

from filelock import FileLock

# Packages that take long to import and do not import huggingface_hub.
SLOW = (
    "torch",
    "torchvision.transforms.v2.functional",
    "torch._dynamo",
    "onnx",
    "httpx2",
    "httpcore2",
    "truststore",
    "encodings.idna",
    "safetensors.torch",
    "safetensors.numpy",
    "PIL.JpegImagePlugin",
    "PIL.GifImagePlugin",
    "click.shell_completion",
    "tqdm.auto",
    "yaml",
    "jinja2",
    "fsspec",
    "boto3",
    "filelock",
    "ftfy",
    "regex",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "sklearn.linear_model",
    "fastapi",
    "uvicorn",
)
# Of a server, and so of its forks. A fork copies the table of pages: large pages make it shorter.
# Memory that is freed stays in the process, which saves the system the work of clearing it.
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=33554432"
    ":glibc.malloc.trim_threshold=1073741824",
}
ACTIONS: tuple[Literal["ignore", "error"], ...] = ("ignore", "error")
# It starts in 10 ms: it imports nothing but the socket, and no site-packages.
COMMAND = """#!{python} -IS
import array, json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([{arguments!r} + sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
    server.sendmsg([b"%10d" % len(request)], [rights])
    server.sendall(request)
    program = int(server.recv(10))
    signal.signal(signal.SIGINT, lambda *_: os.kill(program, signal.SIGINT))
    status = int(server.recv(10))
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@contextmanager
def forking_python(
    folder: Path,
    *modules: str,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Yields the path of the command `python`; `hfclip` is beside it.

    Starts the server of this folder if no process has, and waits for the end of one it started.

    Args:
        folder: The folder of the server, which exists only if another process has started it.
        modules: What all programs import. They must not read what differs in their environments.
        python: What runs the server. With the command of another server, it is a fork itself.
        environment: The environment in which the server imports the modules, else that of this
            process.
    """
    server = None
    with FileLock(folder.with_suffix(".lock")):
        try:
            user = os.open(folder / "users", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no server has been started, or it has ended
            server, user = start(folder, modules, python, environment)
            wait_until_ready(server)
    try:
        yield folder / "python"
    finally:
        os.close(user)
        if server is not None:
            server.wait()


def start(
    folder: Path,
    modules: tuple[str, ...] = (),
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a server and returns it, and a descriptor that keeps it serving."""
    folder.mkdir(exist_ok=True)
    for name in ("users", "socket"):
        (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / "users")
    users = os.open(folder / "users", os.O_RDONLY | os.O_NONBLOCK)
    user = os.open(folder / "users", os.O_WRONLY)
    server = subprocess.Popen(
        [python, __file__, str(folder), *modules],
        env={**(environment or os.environ), **_SETTINGS},
        stdin=users,
        stdout=subprocess.PIPE,
    )
    os.close(users)
    return server, user


def wait_until_ready(server: subprocess.Popen[bytes]) -> None:
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline() == b"ready\n"


def write_commands(folder: Path, address: str) -> None:
    installed = str(Path(sys.executable).parent / "hfclip")
    worker = str(Path(__file__).with_name("ray_worker.py"))
    commands = {"python": [], "hfclip": [installed], "ray_worker": [worker]}
    for name, arguments in commands.items():
        text = COMMAND.format(python=sys.executable, address=address, arguments=arguments)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


class Program(NamedTuple):
    """A program that runs as a fork, for a command that waits for it."""

    number: int
    ended: int  # readable when the program has ended
    command: socket.socket  # readable when the command has ended


def unused(folder: Path) -> bool:
    """Returns whether there is still no user, and if so, makes the next one start a server."""
    with FileLock(folder.with_suffix(".lock")):
        if select.select([sys.stdin], [], [], 0)[0]:
            (folder / "users").unlink()
            return True
    return False


def received(command: socket.socket) -> tuple[Any, list[int]]:
    """Returns the arguments of a command, as it sent them, and its standard streams.

    The arguments are None if the command was killed before it had sent them.
    """
    head, streams, _, _ = socket.recv_fds(command, 10, 3)
    with command.makefile("rb") as file:
        text = file.read(int(head or 0))
    return (json.loads(text) if head and len(text) == int(head) else None), streams


def take_over(streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)


def forget(programs: list[Program]) -> None:
    """Closes what this process has of programs that have ended, or that are not its own."""
    for program in programs:
        program.command.close()
        os.close(program.ended)


def finish(program: Program, *, killed: bool) -> None:
    """Kills a program if its command was killed. Tells the command how the program ended."""
    if killed:
        os.kill(program.number, signal.SIGKILL)
    _, status = os.waitpid(program.number, 0)
    with suppress(OSError):
        program.command.send(b"%10d" % os.waitstatus_to_exitcode(status))


def serve(folder: Path) -> Any:
    """Serves until no process uses this server. Returns what to run in a fork that runs it."""
    programs: list[Program] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        server.listen()
        write_commands(folder, server.getsockname())
        os.write(1, b"ready\n")
        while True:
            commands = [program.command for program in programs]
            endings = [program.ended for program in programs]
            ready, _, _ = select.select([server, sys.stdin, *commands, *endings], [], [])
            for program in programs.copy():
                if program.ended in ready or program.command in ready:
                    finish(program, killed=program.ended not in ready)
                    forget([program])
                    programs.remove(program)
            if server in ready:
                command = server.accept()[0]
                request, streams = received(command)
                number = os.fork() if request else None
                if number == 0:
                    command.close()
                    forget(programs)
                    take_over(streams)
                    return request
                for stream in streams:
                    os.close(stream)
                if number:
                    program = Program(number, os.pidfd_open(number), command)
                    programs.append(program)
                    with suppress(OSError):  # the command was killed
                        command.send(b"%10d" % number)
            elif sys.stdin in ready and unused(folder):
                for program in programs:
                    finish(program, killed=True)
                return None


def run(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Runs a program in this process as Python does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if (action := environment.get("PYTHONWARNINGS")) in ACTIONS:
        warnings.simplefilter(action)
    arguments = arguments[arguments[0] == "-u" :]  # nothing is buffered for long
    kind, name = arguments[:2] if arguments[0] in {"-c", "-m"} else ("script", arguments[0])
    path = environment.get("PYTHONPATH", "")
    first = str(Path(name).parent.resolve()) if kind == "script" else folder
    sys.path[:] = [first, *filter(None, path.split(os.pathsep)), *sys.path[1:]]
    sys.argv = arguments if kind == "script" else [kind, *arguments[2:]]
    if kind == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(name, "<string>", "exec"), main.__dict__)  # noqa: S102
    else:
        runpy.run_path(name, run_name="__main__")


def prepare_clients() -> None:
    """Makes the TLS context of the programs' clients."""
    from certificates import share_context, shared_context

    share_context()
    if "httpcore2" in sys.modules:
        shared_context(_trust_env=True)


def leave_torch_registered() -> None:
    """Ends a program without removing torch's operators one by one, which takes 20 ms."""
    for each in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        if (alive := each.peek()) and alive[1].__module__ == "torch.library":
            each.atexit = False


def end_with(program: Callable[..., None], *arguments: Any) -> NoReturn:
    """Ends this process after a program, without the second that clearing all modules takes."""
    status: Any = 0
    try:
        program(*arguments)
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # noqa: BLE001  # Python prints every exception too
        sys.excepthook(*sys.exc_info())
        status = 1
    if not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    gc.disable()  # what is imported stays
    for module in SLOW:
        with suppress(ImportError):
            importlib.import_module(module)
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not {"hfclip", "huggingface_hub"} & loaded, "they read the environment when imported"
    for module in sys.argv[2:]:
        importlib.import_module(module)
    prepare_clients()
    leave_torch_registered()
    gc.freeze()  # a collection in a fork would copy the memory of all objects
    gc.enable()
    if request := serve(Path(sys.argv[1])):
        end_with(run, *request)
