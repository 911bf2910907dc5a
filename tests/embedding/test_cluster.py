"""How many workers a run on Ray asks for, and what each of them gets."""

import pytest

from hfclip.embedding.cluster import Cluster, Share, share_of
from hfclip.embedding.options import Options
from hfclip.errors import ArgumentError

TWO = {"CPU": 2.0}
BIG = {"CPU": 64.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("cluster", "nodes", "expected"),
    [
        (Cluster(), [TWO], Share(1, 2, 0, 1)),
        (Cluster(), [{"CPU": 16.0}, {"CPU": 6.0}], Share(5, 4, 0, 5)),
        (Cluster(workers=2), [TWO], Share(2, 1, 0, 2)),
        (Cluster(workers=8), [TWO], Share(8, 1, 0, 2)),
        (Cluster(workers=1), [TWO, TWO], Share(1, 2, 0, 2)),
        (Cluster(cpus_per_worker=3), [TWO, {"CPU": 8.0}], Share(2, 3, 0, 2)),
        (Cluster(cpus_per_worker=3), [TWO], Share(1, 3, 0, 0)),
        (Cluster(workers=50), [{"CPU": 64.0}], Share(20, 1, 0, 64)),  # there are 20 parts
    ],
)
def test_workers_without_gpus_share_the_cores(
    cluster: Cluster, nodes: list[dict[str, float]], expected: Share
) -> None:
    assert share_of(cluster, nodes, gpu=False, parts=20) == expected


@pytest.mark.parametrize(
    ("cluster", "nodes", "expected"),
    [
        (Cluster(), [BIG], Share(8, 8, 1, 8)),
        (Cluster(), [BIG, {"CPU": 4.0}], Share(8, 8, 1, 8)),
        (Cluster(gpus_per_worker=0.5), [BIG], Share(16, 4, 0.5, 16)),
        (Cluster(workers=3, gpus_per_worker=2), [BIG], Share(3, 16, 2, 4)),
        (Cluster(workers=4), [TWO], Share(4, 1, 1, 0)),
    ],
)
def test_workers_with_gpus_share_the_cores_of_their_node(
    cluster: Cluster, nodes: list[dict[str, float]], expected: Share
) -> None:
    assert share_of(cluster, nodes, gpu=True, parts=100) == expected


def test_what_a_worker_needs_is_said_in_words() -> None:
    assert Share(1, 1, 0, 1).need == "1 CPU"
    assert Share(1, 4, 0.5, 1).need == "4 CPUs and 0.5 GPUs"


@pytest.mark.parametrize(
    ("cluster", "device", "reason"),
    [
        (Cluster(workers=0), None, "workers is 0; expected at least 1"),
        (Cluster(cpus_per_worker=0), None, "cpus_per_worker is 0"),
        (Cluster(gpus_per_worker=-1), None, "gpus_per_worker is -1"),
        (Cluster(patience=-1.0), None, "patience is -1.0"),
        (Cluster(), "cuda:1", "The device is cuda:1, but Ray assigns the GPUs"),
        (Cluster(gpus_per_worker=1), "cpu", "each worker shall have 1 GPUs"),
        (Cluster(gpus_per_worker=0), "cuda", "each worker shall have 0 GPUs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    cluster: Cluster, device: str | None, reason: str
) -> None:
    with pytest.raises(ArgumentError, match=reason):
        cluster.check(Options(device=device))
