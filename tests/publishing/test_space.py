"""Publishing a Space to a loopback Hub with the real client."""

import hashlib
import json
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from conftest import TINY_VIT, draw
from huggingface_hub import close_session
from huggingface_hub.utils import _http
from loopback.faults import Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at

import hfclip
from hfclip.cards import marks
from hfclip.cli import main
from hfclip.errors import ArgumentError, DataError, PublishError
from hfclip.publishing import space as spaces
from hfclip.publishing import space_files, space_install
from hfclip.publishing.space_files import SpaceModel
from hfclip.releases import RELEASES

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # a warning of the client

TOKEN = "hf_secretOfTheTests"
ADDRESS = "https://example.org/hfclip-0.1.0-py3-none-any.whl"
FROM = ("--hfclip-from", ADDRESS)
OTHERS = "app.py", "requirements.txt"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN)
        hub.add_account("stranger", "hf_stranger")
        yield hub
    close_session()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Returns the folder of a model."""
    draw(TINY_VIT).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def published(hub: LoopbackHub, model: Path) -> str:
    """Returns the commit of the model me/my-clip on the Hub."""
    return hub.add_repository("me/my-clip", {path.name: path for path in model.iterdir()})


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "hfclip-0.1.0-py3-none-any.whl"
    path.write_bytes(b"a wheel")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def push(*arguments: object) -> Result:
    """Runs `hfclip app me/my-clip --push me/my-demo`."""
    return run("app", "me/my-clip", "--push", "me/my-demo", *FROM, *arguments)


def text_of(hub: LoopbackHub, name: str, revision: str = "main") -> str:
    commit = hub.repository("spaces/me/my-demo").find(revision)
    assert commit is not None
    return commit.files[name].content.read().decode()


def names(hub: LoopbackHub) -> set[str]:
    commit = hub.repository("spaces/me/my-demo").find("main")
    return set() if commit is None else set(commit.files) - {".gitattributes"}


def head_of(hub: LoopbackHub, repo_id: str = "spaces/me/my-demo") -> str:
    return hub.repository(repo_id).branches["main"].id


def written(hub: LoopbackHub) -> list[str]:
    """Returns the requests that change the Hub. Validating a card is not one of them."""
    calls = [call for call in hub.calls if call.method not in {"GET", "HEAD"}]
    return [call.path for call in calls if call.path != "/api/validate-yaml"]


def assert_refused(hub: LoopbackHub, result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert written(hub) == []


def test_the_pushed_files_have_exactly_this_content(
    hub: LoopbackHub, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version_of(package: str) -> str:
        return f"1.{len(package)}"

    monkeypatch.setattr(space_install, "version_of", version_of)
    monkeypatch.setattr(space_files, "version_of", version_of)
    result = push()
    assert result.exit_code == 0, result.output
    assert names(hub) == {"README.md", "app.py", "requirements.txt"}
    assert text_of(hub, "app.py") == (
        '"""A page to try me/my-clip, a CLIP model. hfclip wrote this file."""\n'
        "\n"
        "from hfclip.app.demo import open_demo\n"
        "from hfclip.app.space import serve_space\n"
        "\n"
        f'serve_space(open_demo("me/my-clip@{published}"))\n'
    )
    assert text_of(hub, "requirements.txt") == (
        "--extra-index-url https://download.pytorch.org/whl/cpu\n"
        f"hfclip[app] @ {ADDRESS}\n"
        "torch==1.5\ntorchvision==1.11\nhuggingface_hub==1.15\nsafetensors==1.11\nftfy==1.4\n"
        "regex==1.5\nPillow==1.6\nnumpy==1.5\npyarrow==1.7\ngradio==1.6\n"
    )
    assert marks.unsealed(text_of(hub, "README.md")) == (
        "---\n"
        "title: my-demo\n"
        "sdk: gradio\n"
        "sdk_version: '1.6'\n"
        f"python_version: '{sys.version_info.major}.{sys.version_info.minor}'\n"
        "app_file: app.py\n"
        "models:\n- me/my-clip\n"
        "tags:\n- clip\n- hfclip\n"
        "emoji: 🔎\n"
        "colorFrom: blue\n"
        "colorTo: indigo\n"
        "short_description: Rank labels and captions for pictures\n"
        "---\n"
        "\n"
        "# my-demo\n"
        "\n"
        f"A page to try [me/my-clip]({hub.endpoint}/me/my-clip). It ranks labels for pictures, and "
        f"compares pictures with captions. The page always loads commit `{published}` of the "
        "model.\n"
        "\n"
        f"`app.py` opens the page with hfclip {hfclip.__version__}, which wrote these files. On "
        "another machine:\n"
        "\n"
        "```sh\npip install -r requirements.txt\npython app.py\n```\n"
        "\n"
        "The first line of `requirements.txt` names the index of PyTorch for CPUs. Delete it for a "
        "machine\nwith a GPU.\n"
        "\n"
    )


def test_publish_sends_the_model_and_a_space_that_points_at_its_commit(
    hub: LoopbackHub, model: Path
) -> None:
    result = run("publish", model, "me/my-clip", "--space", "my-demo", *FROM)
    assert result.exit_code == 0, result.output
    commit = head_of(hub, "me/my-clip")
    assert f'open_demo("me/my-clip@{commit}")' in text_of(hub, "app.py")
    assert result.stdout.splitlines()[-2:] == [
        f"published      {hub.endpoint}/me/my-clip/commit/{commit}",
        f"published      {hub.endpoint}/spaces/me/my-demo/commit/{head_of(hub)}",
    ]
    assert f"page           {hub.endpoint}/spaces/me/my-demo\n" in result.output
    again = run("publish", model, "me/my-clip", "--space", "me/my-demo", *FROM, "--json")
    told = json.loads(again.stdout)
    assert (told["status"], told["space"]["status"]) == ("nothing changed", "nothing changed")
    assert told["space"]["commit"] == head_of(hub)


def test_a_dry_run_shows_the_plan_and_sends_nothing(
    hub: LoopbackHub, model: Path, published: str
) -> None:
    told = run("publish", model, "me/new", "--space", "me/my-demo", *FROM, "--dry-run", "--json")
    plan = json.loads(told.stdout)["space"]
    assert plan["status"] == "dry run"
    assert (plan["space"], plan["current_commit"]) == ("me/my-demo", "not created yet")
    assert plan["model"] == "me/new at the commit of this publication"
    assert plan["files"] == ["README.md", "app.py", "requirements.txt"]
    assert plan["requirements"][1] == f"hfclip[app] @ {ADDRESS}"
    shown = push("--dry-run").output
    assert f"model          me/my-clip at {published}\n" in shown
    assert f"               hfclip[app] @ {ADDRESS}\n" in shown
    assert shown.endswith("nothing was sent\n")
    assert written(hub) == []


def test_a_space_with_files_of_a_person_is_replaced_only_if_asked(
    hub: LoopbackHub, model: Path, published: str
) -> None:
    hub.add_repository("spaces/me/my-demo", {"app.py": b"mine", "cat.jpg": b"a picture"})
    words = ("The Space me/my-demo exists", "did not write", "--replace-space")
    assert_refused(hub, push(), *words)
    assert_refused(hub, run("publish", model, "me/new", "--space", "me/my-demo", *FROM), *words)
    assert push("--replace-space").exit_code == 0
    assert f"me/my-clip@{published}" in text_of(hub, "app.py")
    assert names(hub) == {"README.md", "app.py", "requirements.txt", "cat.jpg"}
    assert text_of(hub, "cat.jpg") == "a picture"


def test_a_space_of_another_kind_is_refused(hub: LoopbackHub, published: str) -> None:
    hub.add_repository("spaces/me/my-demo", {"index.html": b"<html>"})
    assert_refused(hub, push(), "did not write")


def test_an_empty_space_is_filled(hub: LoopbackHub, published: str) -> None:
    hub.add_repository("spaces/me/my-demo", {".gitattributes": b""})
    assert push().exit_code == 0
    assert names(hub) == {"README.md", "app.py", "requirements.txt"}


def test_a_space_that_hfclip_wrote_follows_the_model(hub: LoopbackHub, published: str) -> None:
    assert push().exit_code == 0
    hub.push("spaces/me/my-demo", {"examples/cat.jpg": b"a picture"})
    commit = hub.push("me/my-clip", {"notes.txt": b"new"})
    result = push()
    assert result.exit_code == 0, result.output
    assert f"me/my-clip@{commit}" in text_of(hub, "app.py")
    assert text_of(hub, "examples/cat.jpg") == "a picture"


@pytest.mark.parametrize("name", ["README.md", *OTHERS])
@pytest.mark.parametrize("change", [b"# mine\n", None], ids=["edited", "deleted"])
def test_a_file_that_a_person_edited_or_deleted_is_not_written_again_unasked(
    name: str, change: bytes | None, hub: LoopbackHub, published: str
) -> None:
    assert push().exit_code == 0
    edited = None if change is None else text_of(hub, name).encode() + change
    hub.push("spaces/me/my-demo", {name: edited})
    hub.forget_calls()
    assert_refused(hub, push(), "were edited")


def test_a_pull_request_leaves_the_space_unchanged(hub: LoopbackHub, published: str) -> None:
    assert_refused(hub, push("--create-pr"), "The Space me/my-demo does not exist")
    hub.add_repository("spaces/me/my-demo", {".gitattributes": b""})
    result = push("--create-pr")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].split() == [
        "published",
        f"{hub.endpoint}/spaces/me/my-demo/discussions/1",
    ]
    assert names(hub) == set()
    assert f"me/my-clip@{published}" in text_of(hub, "app.py", "refs/pr/1")


def test_publish_opens_pull_requests_for_the_model_and_the_space(
    hub: LoopbackHub, model: Path
) -> None:
    hub.add_repository("stranger/clip", {"notes.txt": b""})
    hub.add_repository("spaces/me/my-demo", {".gitattributes": b""})
    result = run(
        "publish", model, "stranger/clip", "--space", "me/my-demo", *FROM, "--create-pr"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    commit = hub.repository("stranger/clip").pull_requests["refs/pr/1"].id
    assert f"stranger/clip@{commit}" in text_of(hub, "app.py", "refs/pr/1")
    assert names(hub) == set()


def test_a_space_of_another_account_is_refused_before_the_model_is_sent(
    hub: LoopbackHub, model: Path
) -> None:
    result = run("publish", model, "me/new", "--space", "stranger/demo", *FROM)
    assert_refused(hub, result, "You cannot write to stranger/demo")


def test_a_failure_after_the_model_was_sent_says_so(
    hub: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None))  # between attempts
    hub.fault(Status(500), "/api/spaces/*", method="POST", times=None)
    result = run("publish", model, "me/my-clip", "--space", "me/my-demo", *FROM, "--json")
    assert result.exit_code == 1
    message = json.loads(result.stdout)["error"]["message"]
    commit = head_of(hub, "me/my-clip")
    assert f"me/my-clip was published at {commit}, but its Space was not: The Space me/" in message
    assert message.endswith(f"hfclip app me/my-clip@{commit} --push me/my-demo")
    hub.forget_faults()
    assert push().exit_code == 0
    assert f"me/my-clip@{commit}" in text_of(hub, "app.py")


def test_a_wheel_is_sent_with_the_space_and_the_next_version_replaces_it(
    hub: LoopbackHub, published: str, wheel: Path
) -> None:
    install = ("app", "me/my-clip", "--push", "me/my-demo", "--hfclip-from")
    assert run(*install, wheel).exit_code == 0
    assert text_of(hub, wheel.name) == "a wheel"
    digest = hashlib.sha256(b"a wheel").hexdigest()
    assert text_of(hub, "requirements.txt").splitlines()[1] == (
        f"hfclip[app] @ {hub.endpoint}/spaces/me/my-demo/resolve/main/{wheel.name}#sha256={digest}"
    )
    later = wheel.rename(wheel.with_name("hfclip-0.2.0-py3-none-any.whl"))
    result = run(*install, later)
    assert "removed        hfclip-0.1.0-py3-none-any.whl\n" in result.output
    assert names(hub) == {"README.md", *OTHERS, later.name}


def test_a_private_space_cannot_install_a_wheel_of_its_own(
    hub: LoopbackHub, published: str, wheel: Path
) -> None:
    install = ("app", "me/my-clip", "--push", "me/my-demo", "--hfclip-from", wheel)
    assert_refused(hub, run(*install, "--private"), "is private, so it cannot install a wheel")
    hub.add_repository("spaces/me/my-demo", {".gitattributes": b""}, private=True)
    assert_refused(hub, run(*install), "is private, so it cannot install a wheel")


def test_a_private_space_is_created_private(hub: LoopbackHub, published: str) -> None:
    assert push("--private").exit_code == 0
    assert hub.repository("spaces/me/my-demo").private


def test_the_plan_names_the_secret_for_a_private_or_gated_model(
    hub: LoopbackHub, model: Path, published: str
) -> None:
    secret = (
        "HF_TOKEN, a token that can read the model, because the model is private or gated: add it "
        f"at {hub.endpoint}/spaces/me/my-demo/settings"
    )
    files = {path.name: path for path in model.iterdir()}
    hub.add_repository("me/closed", files, private=True)
    hub.add_repository("me/gated", files, gated=True)
    for name in ("me/closed", "me/gated"):
        done = hfclip.publish_space(name, "me/my-demo", hfclip_from=ADDRESS, dry_run=True)
        assert done.plan["secret"] == secret
    done = hfclip.publish_space("me/my-clip", "me/my-demo", hfclip_from=ADDRESS, dry_run=True)
    assert "secret" not in done.plan
    told = run(
        "publish", model, "me/new", "--space", "me/d", *FROM, "--private", "--dry-run", "--json"
    )  # fmt: skip
    assert "secret" in json.loads(told.stdout)["space"]


def test_a_model_on_this_machine_is_refused(hub: LoopbackHub, model: Path) -> None:
    result = run("app", model, "--push", "me/my-demo", *FROM)
    assert_refused(hub, result, "is on this machine only", f"hfclip publish {model}")


def test_a_repository_that_is_no_clip_gets_no_space(hub: LoopbackHub) -> None:
    hub.add_repository("me/my-clip", {"config.json": b'{"model_type": "bert"}'})
    assert push().exit_code == 1
    assert written(hub) == []


def test_the_bundled_model_needs_no_repository(hub: LoopbackHub) -> None:
    result = run("app", "digits", "--push", "me/my-demo", *FROM)
    assert result.exit_code == 0, result.output
    assert text_of(hub, "app.py").endswith('serve_space(open_demo("digits"))\n')
    assert "models:" not in text_of(hub, "README.md")
    assert "`digits`, a model inside the package hfclip. It ranks" in text_of(hub, "README.md")


def test_a_part_of_a_repository_is_named(hub: LoopbackHub, model: Path) -> None:
    files = {f"a/b'c/{path.name}": path for path in model.iterdir()}
    commit = hub.add_repository("me/my-clip", files)
    result = push("--subfolder", "a/b'c")
    assert result.exit_code == 0, result.output
    call = f'serve_space(open_demo("me/my-clip@{commit}", subfolder="a/b\'c"))\n'
    assert text_of(hub, "app.py").endswith(call)


def test_a_release_is_named_where_hfclip_pins_its_commit(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "find", lambda *_, **__: None)
    monkeypatch.setattr(spaces, "read_checkpoint", lambda _: None)
    monkeypatch.setattr(spaces, "check_fit", lambda _: None)
    pinned = RELEASES["ViT-B/32"].hub
    found = spaces.resolve_model("ViT-B/32")
    assert found == SpaceModel("ViT-B/32", pinned.repo_id, pinned.revision)
    assert found.place == "ViT-B/32"
    repo_id = RELEASES["RN101"].hub.repo_id
    commit = hub.add_repository(repo_id, {"notes.txt": b""})
    assert spaces.resolve_model("RN101").place == f"{repo_id}@{commit}"
    copy = hub.add_repository("me/ViT-B-32", {"notes.txt": b""})
    assert spaces.resolve_model("ViT-B/32", "me").place == f"me/ViT-B-32@{copy}"
    earlier = hub.add_repository("me/my-clip", {"notes.txt": b""})
    hub.push("me/my-clip", {"notes.txt": b"new"})
    assert spaces.resolve_model(f"me/my-clip@{earlier}").place == f"me/my-clip@{earlier}"


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, f"hfclip[app]=={hfclip.__version__}"),
        (
            {"url": "https://example.org/h.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
            "hfclip[app] @ git+https://example.org/h.git@0a1b",
        ),
        ({"url": ADDRESS, "archive_info": {}}, f"hfclip[app] @ {ADDRESS}"),
    ],
    ids=["index", "git", "address"],
)
def test_a_space_installs_hfclip_as_this_machine_did(
    origin: dict[str, object] | None, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda _: Recorded(origin))
    assert space_install.choose_install().requirement == requirement


@pytest.mark.parametrize(
    "origin",
    [
        {"url": "file:///home/me/hfclip", "dir_info": {"editable": True}},
        {"url": "ssh://git@example.org/h.git", "vcs_info": {"vcs": "git", "commit_id": "0a1b"}},
    ],
    ids=["folder", "ssh"],
)
def test_an_hfclip_that_a_space_cannot_reach_is_refused(
    origin: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "distribution", lambda _: Recorded(origin))
    with pytest.raises(PublishError, match=r"which a Space cannot reach.*--hfclip-from"):
        space_install.choose_install()


class Recorded:
    """An installed package with a record of its origin."""

    def __init__(self, origin: dict[str, object] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    "place",
    ["http://example.org/h.whl", "https://a b", "https://a\nevil", "none.whl", "https://a;b", ""],
)
def test_a_place_that_is_neither_an_address_nor_a_wheel_is_refused(place: str) -> None:
    with pytest.raises(ArgumentError, match="is neither an address"):
        space_install.choose_install(place)


def test_a_file_that_is_no_wheel_of_hfclip_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other-1.0-py3-none-any.whl"
    other.touch()
    with pytest.raises(ArgumentError, match="nor a wheel of hfclip"):
        space_install.choose_install(other)


def test_the_pinned_packages_are_those_that_hfclip_and_its_page_need() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + [
        line
        for extra in ("app", "embed")
        for line in project["optional-dependencies"][extra]
        if not line.startswith("hfclip[")
    ]
    bare = {line.partition(">")[0].partition("<")[0].partition("=")[0] for line in needed}
    assert {*space_install.PINNED} == bare | {"numpy"}  # torch and torchvision need it


def test_a_version_has_no_name_of_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.14.1+cpu")
    assert space_install.version_of("torch") == "2.14.1"


def test_a_missing_package_is_named() -> None:
    with pytest.raises(DataError, match=r"no-such-package is not installed: pip install 'hfclip\["):
        space_install.version_of("no-such-package")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("app", "digits", "--dry-run"), "Leave out --dry-run: it is for a Space: give --push."),
        (("app", "digits", "--push", "me/d", "--port", "80"), "Leave out --port"),
        (("app", "--push", "me/d", "--embeddings", "out"), "Leave out --embeddings"),
        (("publish", "x", "me/y", *FROM), "--replace-space and --hfclip-from need --space."),
    ],
)
def test_options_without_a_space_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_space_is_published_from_python(hub: LoopbackHub, model: Path) -> None:
    done = hfclip.publish(model, "me/my-clip", space="me/my-demo", hfclip_from=ADDRESS)
    assert done.space is not None
    assert (done.status, done.space.status) == ("published", "published")
    assert done.space.sent == ["README.md", *OTHERS]
    assert (done.commit, done.space.commit) == (head_of(hub, "me/my-clip"), head_of(hub))
    again = hfclip.publish_space("me/my-clip", "me/my-demo", hfclip_from=ADDRESS)
    assert (again.status, again.commit, again.sent) == ("nothing changed", done.space.commit, [])
    dry = hfclip.publish(model, "me/x", space="me/y", hfclip_from=ADDRESS, dry_run=True)
    assert dry.space is not None
    assert dry.space.status == "dry run"
