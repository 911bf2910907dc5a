"""The files on the page about clusters: they can be read, and their commands are ours."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml  # type: ignore[import-untyped,unused-ignore]
from click.testing import CliRunner

import hfclip
from benchmarks.cluster import HEADER, SCENARIOS
from benchmarks.cluster import main as simulate
from hfclip.cli import main

PAGE = Path(hfclip.__file__).parents[1] / "docs/pages/cluster.md"


def block(language: str) -> str:
    """Returns the only block of a language on the page."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


def parsed(command: str) -> dict[str, Any]:
    """Returns what `hfclip` makes of a command's words. Raises an error if it does not know one."""
    program, name, *words = shlex.split(command)
    assert program == "hfclip"
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found.make_context(name, words).params


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    loaded = yaml.safe_load(block("yaml"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_job_runs_hfclip_on_the_cluster_that_it_starts(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    options = parsed(job["spec"]["entrypoint"])
    assert options["engine"] == "ray"
    assert options["address"] == "auto"
    assert options["out"] == "s3://bucket/photos-embedded"
    cluster = job["spec"]["rayClusterSpec"]
    [group] = cluster["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    # One worker a pod takes all that the pod has.
    assert options["workers"] == group["replicas"] == group["maxReplicas"]
    assert options["cpus_per_worker"] == int(limits["cpu"])
    assert options["gpus_per_worker"] == int(limits["nvidia.com/gpu"])
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    [first] = head["template"]["spec"]["containers"]
    assert first["image"] == container["image"]


def test_the_image_has_the_ray_and_the_model_of_the_job(job: dict[str, Any]) -> None:
    text = block("dockerfile")
    [version] = re.findall(r"FROM rayproject/ray:([\d.]+)-", text)
    assert version == job["spec"]["rayClusterSpec"]["rayVersion"]
    [model] = re.findall(r"hfclip download (\S+)", text)
    assert model == parsed(job["spec"]["entrypoint"])["model"]


def test_the_array_of_slurm_encodes_all_shares() -> None:
    text = block("bash")
    [last] = re.findall(r"^#SBATCH --array=1-(\d+)$", text, re.MULTILINE)
    [command] = [line for line in text.splitlines() if line.startswith("hfclip")]
    shares = [
        parsed(command.replace("$SLURM_ARRAY_TASK_ID", str(number)))["part_of"]
        for number in range(1, int(last) + 1)
    ]
    assert shares == [(number, len(shares)) for number in range(1, len(shares) + 1)]


def test_the_table_of_the_simulation_is_what_the_command_prints() -> None:
    text = PAGE.read_text()
    rows = text[text.index(HEADER) + len(HEADER) :].strip().splitlines()[: len(SCENARIOS)]
    titles = [row.split("|")[1].strip() for row in rows]
    assert titles == [scenario.title for scenario in SCENARIOS.values()]
    # The last one has all kinds of failures.
    answer = CliRunner().invoke(simulate, [list(SCENARIOS)[-1]])
    assert answer.exit_code == 0, answer.output
    assert answer.output == f"{HEADER}\n{rows[-1]}\n"
