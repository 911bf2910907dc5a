"""Publishing to a loopback Hub with the real client."""

import hashlib
import json
import math
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import TINY_VIT, draw
from huggingface_hub import ModelCard, close_session
from huggingface_hub.utils import _http
from loopback.faults import Before, HangUp, Reset, Status
from loopback.hub import LoopbackHub
from loopback.in_process import point_client_at
from loopback.repository import Blob
from torch import Tensor

import hfclip
from hfclip.cli import main
from hfclip.errors import HubError, IntegrityError, NetworkError, PublishError, RepositoryError
from hfclip.hub import push as pushing
from hfclip.publishing import finetune as publishing
from hfclip.publishing import published_card

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=:DeprecationWarning"
)  # a warning of the client

TOKEN, READ_TOKEN = "hf_secretOfTheTests", "hf_readOnly"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        point_client_at(hub.endpoint, tmp_path / "home", monkeypatch)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.add_account("me", TOKEN, organizations=["lab"])
        hub.add_account("me", READ_TOKEN, role="read")
        hub.add_account("stranger", "hf_stranger")
        yield hub
    close_session()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Returns the folder of the base model, with its configuration."""
    draw(TINY_VIT).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """Returns a trainer's state dict with the prefix of a wrapper, under any file name."""
    return save(tmp_path / "last.pt", state())


def state() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in draw(TINY_VIT).state_dict().items()}


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, path)
    return path


def publish(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["publish", *map(str, arguments)])


def written(hub: LoopbackHub) -> list[str]:
    """Returns the requests that change the Hub. Validating a card is not one of them."""
    return [
        f"{call.method} {call.path}"
        for call in hub.calls
        if call.method not in {"GET", "HEAD"} and call.path != "/api/validate-yaml"
    ]


def files(hub: LoopbackHub) -> Mapping[str, Blob]:
    commit = hub.repository("me/my-clip").find("main")
    assert commit is not None
    return commit.files


def readme(hub: LoopbackHub) -> str:
    return files(hub)["README.md"].content.read().decode()


def metadata(text: str) -> Any:
    """Returns the metadata of a card. Its fields depend on the kind of card."""
    return ModelCard(text).data


def head_of(hub: LoopbackHub, repo_id: str = "me/my-clip") -> str:
    return hub.repository(repo_id).branches["main"].id


def assert_refused(hub: LoopbackHub, result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Error: ")
    for word in words:
        assert word in result.output
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
    assert written(hub) == []


def test_a_fine_tune_is_published_and_loads_by_its_name(
    hub: LoopbackHub, tuned: Path, base: Path
) -> None:
    result = publish(tuned, "me/my-clip", "--base", base, "--license", "mit", "--dataset", "mnist")
    assert result.exit_code == 0, result.output
    assert "published" in result.output
    assert f"{hub.endpoint}/me/my-clip/commit/" in result.output
    loaded, _ = hfclip.load("me/my-clip", "cpu")
    expected = state()
    assert all(torch.equal(loaded.state_dict()[name], expected[name]) for name in expected)
    data = ModelCard(readme(hub)).data
    told = [data.get(key) for key in ("license", "datasets", "library_name")]
    assert told == ["mit", ["mnist"], "hfclip"]


def test_all_files_are_sent_in_one_commit(hub: LoopbackHub, tuned: Path, base: Path) -> None:
    publish(tuned, "me/my-clip", "--base", base)
    commits = [path for path in written(hub) if "/commit/" in path]
    assert len(commits) == 1


def test_a_dry_run_shows_the_files_and_sends_nothing(
    hub: LoopbackHub, tuned: Path, base: Path
) -> None:
    result = publish(tuned, "me/my-clip", "--base", base, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert plan["repository"] == "me/my-clip"
    assert plan["parameters"] == TINY_VIT.parameter_count
    assert plan["files"][0].startswith("README.md (")
    assert plan["commit"] is None
    assert written(hub) == []
    text = publish(tuned, "me/my-clip", "--base", base, "--dry-run").output
    assert text.endswith("nothing was sent\n")


def test_metrics_are_written_to_the_card(
    hub: LoopbackHub, tuned: Path, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text('{"accuracy": 0.875, "f1": 0.5}')
    result = publish(
        tuned, "me/my-clip", "--base", base, "--dataset", "mnist",
        "--metrics", tmp_path / "results.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    card = ModelCard(readme(hub))
    results = card.data.get("eval_results")
    figures = [(result.metric_type, result.metric_value) for result in results]
    assert figures == [("accuracy", 0.875), ("f1", 0.5)]
    assert "| mnist | accuracy | 0.875 |" in card.text


@pytest.mark.parametrize("layout", ["open_clip", "transformers"])
def test_a_model_published_in_another_layout_loads(
    layout: str, hub: LoopbackHub, tuned: Path, base: Path
) -> None:
    result = publish(tuned, "me/my-clip", "--base", base, "--layout", layout)
    assert result.exit_code == 0, result.output
    loaded, _ = hfclip.load("me/my-clip", "cpu")
    expected = state()
    assert all(torch.equal(loaded.state_dict()[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_half_precision_of_a_fine_tune_is_kept(
    dtype: torch.dtype, hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in state().items()}
    result = publish(save(tmp_path / "last.pt", tensors), "me/my-clip", "--base", base)
    assert result.exit_code == 0, result.output
    blob = files(hub)["model.safetensors"]
    assert blob.size < 0.6 * sum(4 * tensor.numel() for tensor in tensors.values())


def test_resized_position_embeddings_change_the_image_size(
    hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    tensors = state()
    tensors["visual.positional_embedding"] = torch.randn(10, 64)
    result = publish(save(tmp_path / "last.pt", tensors), "me/my-clip", "--base", base)
    assert result.exit_code == 0, result.output
    model, preprocess = hfclip.load("me/my-clip", "cpu")
    assert model.config.image_resolution == 48
    assert preprocess.transforms[0].size == 48


def change(name: str, value: float) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors[name].view(-1)[:1].fill_(value)


BROKEN: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "NaN": (change("visual.proj", math.nan), "visual.proj hold NaN or infinity"),
    "infinity": (change("ln_final.bias", math.inf), "ln_final.bias hold NaN or infinity"),
    "too large": (
        lambda t: t["text_projection"].fill_(3e38),
        "the text features contain NaN or infinity",
    ),
    "missing": (lambda t: t.pop("visual.ln_pre.bias"), "missing visual.ln_pre.bias"),
    "left over": (lambda t: t.update({"head.weight": torch.ones(2)}), "unexpected head.weight"),
    "of another shape": (lambda t: t.update({"ln_final.bias": torch.ones(2)}), "instead of (64,)"),
    "LoRA": (
        lambda t: t.update({"visual.lora_A.weight": torch.ones(2)}),
        "Merge them into the model first",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_weights_are_refused_before_anything_is_sent(
    kind: str, hub: LoopbackHub, base: Path, tmp_path: Path
) -> None:
    spoil, words = BROKEN[kind]
    tensors = state()
    spoil(tensors)
    result = publish(save(tmp_path / "last.pt", tensors), "me/my-clip", "--base", base)
    assert_refused(hub, result, words)


def test_a_single_weight_file_needs_a_base(hub: LoopbackHub, tuned: Path) -> None:
    assert_refused(hub, publish(tuned, "me/my-clip"), "--base ViT-B/16")


def test_a_folder_with_another_architecture_than_its_base_is_refused(
    hub: LoopbackHub, base: Path
) -> None:
    result = publish(base, "me/my-clip", "--base", "ViT-B/16")
    assert_refused(hub, result, "embed_dim is 64", "and 512 in ViT-B/16")


def test_a_configuration_that_contradicts_the_weights_is_refused(
    hub: LoopbackHub, base: Path
) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "context_length": 20}))
    assert_refused(hub, publish(base, "me/my-clip"), "positional_embedding is (16, 64)")


@pytest.mark.parametrize("name", ["me/my clip", "me/../x", "me/a/b", "me/" + 100 * "x", "me/.git"])
def test_a_name_that_is_not_allowed_is_refused(name: str, hub: LoopbackHub, base: Path) -> None:
    assert_refused(hub, publish(base, name), "is not a valid name for a repository")


def test_publishing_without_a_token_sends_nothing(
    hub: LoopbackHub, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert_refused(hub, publish(base, "me/my-clip"), "You are not logged in", "hf auth login")


@pytest.mark.parametrize(
    ("token", "repo_id", "words"),
    [
        (READ_TOKEN, "me/my-clip", "is read-only"),
        (TOKEN, "stranger/clip", "can write to me, lab"),
        ("hf_unknown", "me/my-clip", "does not know your token"),
    ],
)
def test_publishing_without_write_permission_sends_nothing(
    token: str,
    repo_id: str,
    words: str,
    hub: LoopbackHub,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    result = publish(base, repo_id)
    assert_refused(hub, result, words)
    assert token not in result.output


def test_publishing_to_an_own_organization_works(hub: LoopbackHub, base: Path) -> None:
    assert publish(base, "lab/my-clip").exit_code == 0
    assert hfclip.load("lab/my-clip", "cpu")


def test_an_existing_readme_is_overwritten_only_on_request(hub: LoopbackHub, base: Path) -> None:
    hub.add_repository("me/my-clip", {"README.md": b"# Mine\n"})
    head = head_of(hub)
    result = publish(base, "me/my-clip")
    assert_refused(hub, result, "already has a README.md", "--keep-card", "--replace-card")
    assert head_of(hub) == head


@pytest.mark.parametrize(("option", "kept"), [("--keep-card", True), ("--replace-card", False)])
def test_the_readme_is_kept_or_replaced_on_request(
    option: str, kept: bool, hub: LoopbackHub, base: Path
) -> None:
    hub.add_repository("me/my-clip", {"README.md": b"# Mine\n"})
    assert publish(base, "me/my-clip", option).exit_code == 0
    card = readme(hub)
    assert (card == "# Mine\n") is kept
    assert hfclip.load("me/my-clip", "cpu")


def test_publishing_the_same_again_changes_nothing(hub: LoopbackHub, base: Path) -> None:
    first = json.loads(publish(base, "me/my-clip", "--json").stdout)
    hub.forget_calls()
    second = json.loads(publish(base, "me/my-clip", "--json").stdout)
    assert second["commit"] == first["commit"]
    assert second["sent"] == []
    assert written(hub) == []


def test_a_pull_request_needs_no_write_permission(hub: LoopbackHub, base: Path) -> None:
    hub.add_repository("stranger/clip", {"config.json": b"{}"})
    head = head_of(hub, "stranger/clip")
    result = publish(base, "stranger/clip", "--create-pr")
    assert "discussions" in result.output, result.output
    assert head_of(hub, "stranger/clip") == head


@pytest.mark.parametrize(
    ("fault", "path", "method"),
    [
        (Status(503), "/api/models/*/commit/*", "POST"),
        (Reset(), "/_lfs/*", "PUT"),
        (HangUp(), "/api/models/*/commit/*", "POST"),
        (Status(403), "/api/models/*/commit/*", "POST"),
    ],
)
def test_a_failed_upload_leaves_the_repository_unchanged(
    fault: Status | Reset | HangUp,
    path: str,
    method: str,
    hub: LoopbackHub,
    base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda _: None))  # between attempts
    hub.add_repository("me/my-clip", {"notes.txt": b"before"})
    head = head_of(hub)
    hub.fault(fault, path, method=method, times=None)
    result = publish(base, "me/my-clip")
    assert result.exit_code == 1
    assert "me/my-clip" in result.output
    assert TOKEN not in result.output
    assert head_of(hub) == head
    hub.forget_faults()
    assert publish(base, "me/my-clip").exit_code == 0
    assert hfclip.load("me/my-clip", "cpu")


def test_uploaded_files_are_not_sent_again(hub: LoopbackHub, base: Path) -> None:
    hub.fault(Status(403), "/api/models/*/commit/*", method="POST", times=1)
    assert publish(base, "me/my-clip").exit_code == 1
    uploads = [call for call in hub.calls if call.method == "PUT"]
    assert len(uploads) == 1
    assert publish(base, "me/my-clip").exit_code == 0
    assert len([call for call in hub.calls if call.method == "PUT"]) == 1


def test_a_concurrent_commit_is_noticed(hub: LoopbackHub, base: Path) -> None:
    hub.add_repository("me/my-clip", {"notes.txt": b"before"})
    with publishing.prepared(base, "me/my-clip") as publication:
        head = hub.push("me/my-clip", {"notes.txt": b"someone else's"})
        with pytest.raises(PublishError, match="has a new commit that was pushed in the meantime"):
            publishing.send(publication)
    assert head_of(hub) == head


def test_a_published_file_with_wrong_bytes_is_reported(
    hub: LoopbackHub, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publishing.prepared(base, "me/my-clip") as publication:
        pushed = publishing.send(publication)
    other = hfclip.CLIP.from_pretrained(base)
    other.text_projection.data[0, 0] += 1
    other.save_pretrained(base)
    hub.push("me/my-clip", {"model.safetensors": base / "model.safetensors"})
    head = head_of(hub)
    lying = pushing.Pushed("me/my-clip", head, pushed.url, [])
    with pytest.raises(IntegrityError, match="gives different text features"):
        publishing.read_back(publication.checkpoint, lying, None)


def test_a_killed_upload_leaves_the_repository_and_the_next_try_completes(
    hub: LoopbackHub, base: Path, tmp_path: Path, python: Path
) -> None:
    hub.add_repository("me/my-clip", {"notes.txt": b"before"})
    head = head_of(hub)
    environment = hub.environment(tmp_path / "home", TOKEN)
    command = [str(python), "-m", "hfclip.cli", "publish", str(base), "me/my-clip"]
    for path in ("/_lfs/*", "/me/my-clip.git/*", "/api/models/*/commit/*"):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        order = hub.fault(Before(process.kill), path, method="P*", times=1)
        hub.fault(Status(503), path, method="P*", times=None)
        process.communicate(timeout=60)  # the stream closes when the program has ended too
        assert process.returncode == -signal.SIGKILL
        assert order.struck == 1
        assert head_of(hub) == head
        hub.forget_faults()
    assert publish(base, "me/my-clip").exit_code == 0
    assert hfclip.load("me/my-clip", "cpu")


def test_push_to_hub_publishes_a_model_from_memory(hub: LoopbackHub) -> None:
    model = draw(TINY_VIT)
    url = model.push_to_hub("me/my-clip", model_card_kwargs={"license": "mit"})
    assert url.startswith(f"{hub.endpoint}/me/my-clip/commit/")
    loaded = hfclip.CLIP.from_pretrained("me/my-clip")
    assert torch.equal(loaded.text_projection, model.text_projection)
    assert "license: mit" in readme(hub)


def test_push_to_hub_keeps_the_readme_and_applies_patterns(hub: LoopbackHub) -> None:
    hub.add_repository("me/my-clip", {"README.md": b"# Mine\n", "old.bin": b"old"})
    draw(TINY_VIT).push_to_hub(
        "me/my-clip", ignore_patterns="preprocessor*", delete_patterns="*.bin"
    )
    assert readme(hub) == "# Mine\n"
    assert sorted(files(hub)) == ["README.md", "config.json", "model.safetensors"]


def test_push_to_hub_refuses_nan(hub: LoopbackHub) -> None:
    model = draw(TINY_VIT)
    with torch.no_grad():
        model.text_projection[0, 0] = math.nan
    with pytest.raises(PublishError, match="text_projection hold NaN"):
        model.push_to_hub("me/my-clip")
    assert written(hub) == []


# The card.


def test_the_readme_of_the_folder_is_the_card(hub: LoopbackHub, base: Path) -> None:
    """The arguments of save_pretrained are on the card that publish sends."""
    kwargs: dict[str, Any] = {"license": "mit", "base_model": "timm/base"}
    kwargs["metrics"] = [("mnist", "accuracy", 0.875)]
    draw(TINY_VIT).save_pretrained(base, model_card_kwargs=kwargs)
    plan = json.loads(publish(base, "me/my-clip", "--json").stdout)
    assert plan["card"] == "generated, with the facts of the folder's README.md"
    assert plan["metrics"] == ["mnist: accuracy 0.875"]
    assert (plan["license"], plan["fine-tuned_from"]) == ("mit", "timm/base")
    data = metadata(readme(hub))
    assert [data.license, data.base_model, data.eval_results[0].metric_value] == [
        "mit",
        "timm/base",
        0.875,
    ]
    assert 'hfclip.load("me/my-clip", device=device)' in readme(hub)


OWN = "---\nlicense: mit\nwidget: []\n---\n\n# Mine\n\nMy words.\n"


def test_a_handwritten_readme_is_the_card_and_options_change_its_metadata(
    hub: LoopbackHub, base: Path
) -> None:
    (base / "README.md").write_text(OWN)
    assert publish(base, "me/my-clip").exit_code == 0
    assert readme(hub) == OWN
    plan = json.loads(publish(base, "me/other", "--license", "apache-2.0", "--json").stdout)
    assert plan["license"] == "apache-2.0"
    assert plan["card"] == "the README.md of the folder, with another license in its head"
    commit = hub.repository("me/other").find("main")
    assert commit is not None
    text = commit.files["README.md"].content.read().decode()
    assert text == OWN.replace("license: mit", "license: apache-2.0")


def test_a_generated_card_on_the_hub_is_renewed_and_keeps_its_licence(
    hub: LoopbackHub, base: Path, tuned: Path
) -> None:
    publish(tuned, "me/my-clip", "--base", base, "--license", "mit", "--dataset", "mnist")
    first = readme(hub)
    changed = {name: tensor + 0.01 for name, tensor in state().items()}
    save(tuned, changed)
    result = publish(tuned, "me/my-clip", "--base", base)
    assert result.exit_code == 0, result.output
    digest = hashlib.sha256(files(hub)["model.safetensors"].content.read()).hexdigest()
    assert digest in readme(hub)
    assert digest not in first
    data = metadata(readme(hub))
    assert [data.license, data.datasets] == ["mit", ["mnist"]]


def test_push_to_hub_renews_a_generated_card_and_keeps_an_edited_one(
    hub: LoopbackHub,
) -> None:
    model = draw(TINY_VIT)
    model.push_to_hub("me/my-clip", model_card_kwargs={"license": "mit"})
    edited = readme(hub).replace("# my-clip", "# My own title")
    for card in (None, edited):
        if card:
            hub.push("me/my-clip", {"README.md": card.encode()})
        with torch.no_grad():
            model.text_projection[0, 0] += 1
        model.push_to_hub("me/my-clip")
        digest = hashlib.sha256(files(hub)["model.safetensors"].content.read()).hexdigest()
        assert f"`{digest}` |" in readme(hub)
        assert "license: mit" in readme(hub)
    assert "# My own title" in readme(hub)


def test_an_edited_card_that_is_kept_gets_the_new_table_of_files(
    hub: LoopbackHub, base: Path
) -> None:
    publish(base, "me/my-clip")
    edited = readme(hub).replace("# my-clip", "# My own title")
    hub.push("me/my-clip", {"README.md": edited.encode()})
    model = draw(TINY_VIT)
    with torch.no_grad():
        model.text_projection[0, 0] += 1
    model.save_pretrained(base)
    refused = publish(base, "me/my-clip").output
    assert "already has a README.md that hfclip did not write" in refused
    assert publish(base, "me/my-clip", "--keep-card").exit_code == 0
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert "# My own title" in readme(hub)
    assert digest in readme(hub)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B/16", "timm/vit_base_patch16_clip_224.openai"),
        ("org/name", "org/name"),
        ("hf-hub:org/name", "org/name"),
        ("org/name@v1.0", "org/name"),
        ("hf-hub:org/name@main", "org/name"),
        ("digits", None),
        ("{folder}", None),
        ("{folder}/model.safetensors", None),
    ],
)
def test_the_card_names_the_repository_of_the_base_and_no_local_path(
    name: str, expected: str | None, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HFCLIP_NAMESPACE", raising=False)
    name = name.format(folder=base)
    assert published_card.hub_name(name) == expected
    named = published_card.find_base("last.pt", name, "me/my-clip")
    assert named.given.get("base_model") == expected
    assert str(base) not in str(named.given)
    if expected is None:
        assert named.note is not None
    copied = published_card.find_base(name, None, "me/my-clip")
    assert copied.given.get("base_model") == expected
    assert published_card.find_base("me/my-clip", None, "me/my-clip").given == {}


def test_the_plan_says_that_a_local_base_is_not_named(
    hub: LoopbackHub, tuned: Path, base: Path
) -> None:
    plan = json.loads(publish(tuned, "me/my-clip", "--base", base, "--json").stdout)
    assert plan["fine-tuned_from"] == f"{base} (a local path, which the card omits)"
    assert str(base) not in readme(hub)
    assert str(base.parent) not in readme(hub)


def test_a_copy_of_a_repository_names_it(hub: LoopbackHub, base: Path) -> None:
    hub.add_repository(
        "org/name", {path.name: path for path in base.iterdir() if path.name != "README.md"}
    )
    assert publish("org/name@main", "me/my-clip", "--license", "mit").exit_code == 0
    data = metadata(readme(hub))
    assert data.base_model == "org/name"
    assert data.get("base_model_relation") is None
    assert "A copy of [org/name]" in readme(hub)


@pytest.mark.parametrize("more", [[], ["--dry-run"], ["--json"]])
def test_the_dry_run_refuses_an_unknown_licence(
    more: list[str], hub: LoopbackHub, base: Path
) -> None:
    result = publish(base, "me/my-clip", "--license", "apache2", *more)
    assert result.exit_code == 1
    assert "Did you mean 'apache-2.0'?" in result.stderr
    assert hub.calls == []


def test_the_dry_run_lets_the_hub_check_the_card_metadata(hub: LoopbackHub, base: Path) -> None:
    (base / "README.md").write_text("---\nlicense: of-my-own\n---\n# Mine\n")
    hub.fault(Status(400), "/api/validate-yaml", method="POST")
    result = publish(base, "me/my-clip", "--dry-run")
    assert result.exit_code == 1
    assert "The Hub rejects the metadata of README.md" in result.output
    assert written(hub) == []


def test_an_unavailable_hub_is_reported(base: Path, hub: LoopbackHub) -> None:
    hub.fault(Status(503), "/api/*", times=None)
    with (
        pytest.raises(NetworkError, match="the Hub answers 503"),
        publishing.prepared(base, "me/my-clip"),
    ):
        pass


def test_hub_and_publish_errors_are_hfclip_errors() -> None:
    for kind in (RepositoryError, NetworkError, IntegrityError):
        assert issubclass(kind, HubError)
    assert issubclass(PublishError, hfclip.HfclipError)
