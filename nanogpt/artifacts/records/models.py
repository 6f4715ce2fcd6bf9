"""config.json of a model directory: everything needed to rebuild the model."""

from typing import Any, ClassVar

from pydantic import ConfigDict, JsonValue, PositiveInt

from nanogpt.artifacts.records.base import Count, Record


class ModelConfig(Record):
    """The model's architecture and vocabulary, with its settings as extra fields.

    ensemble: the settings of each model whose predictions are averaged, instead of the model's
    own. start: the ids of the tokens that start a sample without a prompt; empty in old files.
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
        """Format 1 may not have `position`, because the first models all had learned positions."""
        return {"position": "learned", **content}

    @property
    def settings(self) -> dict[str, JsonValue]:
        """The settings of the model, unchecked."""
        return dict(self.__pydantic_extra__)
