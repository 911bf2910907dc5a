"""Runs the Python programs of Ray as forks of a process that has imported much; see forks.py."""

from collections.abc import Callable
from pathlib import Path

# What Ray's programs import. They import Ray itself: it reads the numbers of its job and of a
# process from the environment then.
MODULES = (
    "hfclip.embedding.nodes",
    "hfclip.embedding.pipeline",
    "aiohttp.web",
    "attrs",
    "google.protobuf.any_pb2",
    "google.protobuf.duration_pb2",
    "google.protobuf.json_format",
    "google.protobuf.struct_pb2",
    "google.protobuf.timestamp_pb2",
    "jsonschema",
    "logging.handlers",
    "msgpack",
    "pydantic.v1",
    "requests",
)
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The process above a fork is no process of Ray.
    "RAY_enable_pipe_based_agent_to_parent_health_check": "1",
}


def use_forks(
    python: Path,
    replace: Callable[[object, str, object], None] = setattr,
) -> None:
    """Makes Ray on this machine start its Python programs with another command.

    It starts neither those that add nodes and show logs nor the one behind the dashboard. They do
    nothing in the tests, and each costs a second.

    Args:
        python: The command.
        replace: What replaces an attribute of an object.
    """
    from ray._private import ray_constants, services
    from ray._private.node import Node

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        replace(Node, name, lambda *_, **__: None)
    start = "_build_python_executable_command_memory_profileable"
    replace(services, start, lambda *_, **__: [str(python)])
    replace(ray_constants, "SETUP_WORKER_FILENAME", str(python.with_name("ray_worker")))
