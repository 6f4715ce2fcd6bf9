"""config.json of a model directory: all that is needed to build the model again."""

from typing import Any, ClassVar

from pydantic import ConfigDict, JsonValue, PositiveInt

from nanogpt.artifacts.records.base import Count, Record


class ModelConfig(Record):
    """The model's architecture and vocabulary; beside these, all of its settings by their names.

    ensemble: instead of settings, those of each model whose predictions are averaged. start: the
    ids of the tokens that a text begins after, for samples without a prompt; the first models don't
    say.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    FORMAT: ClassVar[int] = 2

    architecture: str
    vocab_size: PositiveInt
    ensemble: tuple[dict[str, JsonValue], ...] = ()
    start: tuple[Count, ...] = ()

    @classmethod
    def upgrade(cls, content: dict[str, Any], found: int) -> dict[str, Any]:  # noqa: ARG003
        """Format 1 could lack `position`: the first models had learned positions only."""
        return {"position": "learned", **content}

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the model, unchecked."""
        return dict(self.__pydantic_extra__)
