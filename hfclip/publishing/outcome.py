"""The outcome of a publication: the same for a model and for a Space."""

from dataclasses import dataclass
from typing import Any, Literal

from hfclip.hub.push import Pushed

Status = Literal["published", "nothing changed", "dry run"]


@dataclass(frozen=True)
class Published:
    """The outcome of `publish` or of `publish_space`.

    Attributes:
        plan: The plan: what is sent where, in JSON types.
        status: "published"; "nothing changed" if the repository already had the same files; or
            "dry run".
        commit: The commit that contains the files; None after a dry run.
        url: The web page of the commit or of the pull request; None after a dry run.
        sent: The names of the new or changed files.
        space: The outcome for the Space that was published with the model, or None.
    """

    plan: dict[str, Any]
    status: Status
    commit: str | None
    url: str | None
    sent: list[str]
    space: "Published | None" = None

    @classmethod
    def of(
        cls, plan: dict[str, Any], pushed: Pushed, space: "Published | None" = None
    ) -> "Published":
        """Returns the outcome of a push."""
        status: Status = "published" if pushed.sent else "nothing changed"
        return cls(plan, status, pushed.commit, pushed.url, pushed.sent, space)

    @classmethod
    def dry(cls, plan: dict[str, Any], space: "Published | None" = None) -> "Published":
        """Returns the outcome of a dry run."""
        return cls(plan, "dry run", None, None, [], space)

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan and the outcome in JSON types."""
        names = ("status", "commit", "url", "sent")
        values = self.plan | {name: getattr(self, name) for name in names}
        return values | ({"space": self.space.to_dict()} if self.space else {})
