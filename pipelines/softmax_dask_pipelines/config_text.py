"""A config as text: YAML with a comment for each key, and the JSON Schema that editors use. Writes no file."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Discriminator, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from softmax_dask_pipelines.config_verbs import Config
from softmax_dask_pipelines.templates import escaped

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PATHS = ("path", "classes", "previous", "train_priors", "target_priors", "calibration", "accept", "conformal")
"""Keys whose values may have templates."""
_HEAD = """\
# What `softmax-dask run THIS_FILE` does. Paths are relative to the working directory.
# A key that begins with # is left out; its comment says what that means.
"""


def text_of_config(config: Config) -> str:
    """YAML that `read_config` reads as `config`, with every key that there is."""
    return "\n".join([_HEAD, *_section(config, "")]) + "\n"


def text_of_schema() -> str:
    """JSON Schema of a config file; its key order is pydantic's, which is sorted outside of `properties`."""
    configs: TypeAdapter[Config] = TypeAdapter(Annotated[Config, Discriminator("verb")])
    schema = {"$schema": _DIALECT, **configs.json_schema(schema_generator=_WithoutTitles)}
    return json.dumps(schema, indent=2)


def _section(section: BaseModel, indent: str) -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if isinstance(value, BaseModel):
            yield f"{indent}{key}:  # {field.description}"
            yield from _section(value, indent + "  ")
            yield ""
        else:
            yield f"{indent}# {field.description}"
            yield f"{indent}{'# ' if value is None else ''}{_entry(field.alias or key, value)}"


def _entry(key: str, value: Any) -> str:
    if value is None:
        return f"{key}:"
    text = escaped(value) if key in _PATHS else value
    plain = {key: list(text) if isinstance(text, tuple) else text}
    flow = None if isinstance(value, tuple | dict) else False
    # One line each: a long path must not be folded.
    entry = yaml.safe_dump(plain, default_flow_style=flow, allow_unicode=True, width=10**9, sort_keys=False)
    return entry.rstrip("\n")


class _WithoutTitles(GenerateJsonSchema):
    """Titles repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
