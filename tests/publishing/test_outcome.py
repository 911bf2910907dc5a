"""The reported outcome of `hfclip publish` and of `hfclip.publish`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import TINY_VIT, draw
from huggingface_hub import close_session
from loopback.faults import Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from loopback.repository import Blob

import hfclip
from hfclip.cli import main
from hfclip.errors import PublishError

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # a warning of the client

TOKEN = "hf_secretOfTheTests"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        yield hub
    close_session()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    draw(TINY_VIT).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    torch.save(draw(TINY_VIT).state_dict(), tmp_path / "last.pt")
    return tmp_path / "last.pt"


def publish(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["publish", *map(str, arguments)])


def files(hub: LoopbackHub) -> Mapping[str, Blob]:
    commit = hub.repository("me/my-clip").find("main")
    assert commit is not None
    return commit.files


def head_of(hub: LoopbackHub) -> str:
    return hub.repository("me/my-clip").branches["main"].id


def written(hub: LoopbackHub) -> list[str]:
    """Returns the requests that change the Hub. Validating a card is not one of them."""
    calls = [call for call in hub.calls if call.method not in {"GET", "HEAD"}]
    return [call.path for call in calls if call.path != "/api/validate-yaml"]


def test_the_outcome_is_nothing_changed_if_no_file_was_sent(hub: LoopbackHub, base: Path) -> None:
    first = publish(base, "me/my-clip").stdout.splitlines()[-1]
    assert first.split() == ["published", f"{hub.endpoint}/me/my-clip/commit/{head_of(hub)}"]
    second = publish(base, "me/my-clip").stdout.splitlines()[-1]
    assert second == f"nothing changed: {hub.endpoint}/me/my-clip already has these files"


def test_json_reports_every_outcome_only_on_standard_output(hub: LoopbackHub, base: Path) -> None:
    outcomes = {}
    for arguments in (["--dry-run"], [], [], ["--license", "none"]):
        result = publish(base, "me/my-clip", "--json", *arguments)
        told = json.loads(result.stdout)
        outcomes[told["status"]] = (result.exit_code, told.get("commit"))
    commit = head_of(hub)
    assert outcomes == {
        "dry run": (0, None),
        "published": (0, commit),
        "nothing changed": (0, commit),
        "failed": (1, None),
    }
    assert told["error"]["type"] == "ArgumentError"
    assert f"Error: {told['error']['message']}\n" == result.stderr


def test_publish_works_as_one_python_function(hub: LoopbackHub, tuned: Path, base: Path) -> None:
    plan = hfclip.publish(tuned, "me/my-clip", base=str(base), license="mit", dry_run=True)
    assert (plan.status, plan.commit, plan.url, plan.sent) == ("dry run", None, None, [])
    assert written(hub) == []
    done = hfclip.publish(tuned, "me/my-clip", base=str(base), license="mit")
    assert (done.status, done.commit) == ("published", head_of(hub))
    assert done.url == f"{hub.endpoint}/me/my-clip/commit/{head_of(hub)}"
    assert done.plan == plan.plan
    assert {*done.sent, ".gitattributes"} == set(files(hub))
    again = hfclip.publish(tuned, "me/my-clip", base=str(base), license="mit")
    assert (again.status, again.commit, again.sent) == ("nothing changed", done.commit, [])
    with pytest.raises(PublishError, match=r'base="ViT-B/16" in Python'):
        hfclip.publish(tuned, "me/my-clip")


def test_an_error_of_an_unavailable_hub_names_the_request(hub: LoopbackHub, base: Path) -> None:
    hub.fault(Status(503), "/api/whoami-v2", times=None)
    output = publish(base, "me/my-clip").output
    assert "The name of your account cannot be fetched: the Hub answers 503" in output
    assert "sent" not in output
    hub.forget_faults()
    hub.fault(Status(503), "/api/validate-yaml", method="POST", times=None)
    assert "The head of README.md cannot be checked" in publish(base, "me/my-clip").output
    hub.forget_faults()
    hub.fault(Status(503), "/api/models/me/my-clip*", times=None)
    assert "The list of files of me/my-clip cannot be fetched" in publish(base, "me/my-clip").output
