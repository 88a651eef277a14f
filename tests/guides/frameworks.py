"""What the guide's examples are given, a tiny model each, and the probabilities that the framework itself gives.

A package is imported only by the function that needs it: most are not installed where the tests run.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tests.guides.pages import Names

ROWS, FEATURES, CLASSES = 3000, 8, 5
BATCH_ROWS = 700
"""Does not divide ROWS: the last batch is a shorter one."""

CLASS_NAMES = [f"class {k}" for k in range(CLASSES)]
IDS = [f"image-{row:04d}" for row in range(ROWS)]

Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Example:
    """A block of the page on dumps."""

    heading: str
    dump: str
    """What it writes."""
    given: Callable[[], tuple[Names, Probabilities]]
    packages: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """Of `score`, as the page says."""
    carried: tuple[str, ...] = ("id", "target", "class_names")
    """What the dump holds beside the logits."""


def torch_half() -> tuple[Names, Probabilities]:
    return _torch("float16")


def torch_bfloat16() -> tuple[Names, Probabilities]:
    return _torch("bfloat16")


def jax_half() -> tuple[Names, Probabilities]:
    return _jax("float16")


def jax_bfloat16() -> tuple[Names, Probabilities]:
    return _jax("bfloat16", batch_rows=ROWS)


def linear() -> tuple[Names, Probabilities]:
    features, truth = _labelled()
    classifier = importlib.import_module("sklearn.linear_model").LogisticRegression().fit(features, truth)
    names = {"classifier": classifier, "features": features, "truth": truth, "ids": IDS}
    return names, classifier.predict_proba(features)


def forest() -> tuple[Names, Probabilities]:
    names, _ = linear()
    ensemble = importlib.import_module("sklearn.ensemble")
    names["forest"] = ensemble.RandomForestClassifier(5, random_state=0).fit(names["features"], names["truth"])
    return names, names["forest"].predict_proba(names["features"])


def binary() -> tuple[Names, Probabilities]:
    names, _ = forest()
    regression = importlib.import_module("sklearn.linear_model").LogisticRegression()
    names["binary"] = regression.fit(names["features"], names["truth"] == CLASS_NAMES[0])
    return names, names["binary"].predict_proba(names["features"])


def vllm() -> tuple[Names, Probabilities]:
    """Stand-ins: probabilities by default, logits where the activation is off, as lists of Python floats."""
    logits = np.random.default_rng(0).normal(size=(ROWS, CLASSES))
    prompts = [f"prompt {row}" for row in range(ROWS)]

    def classify(asked: list[str], *, pooling_params: Any = None) -> list[Any]:
        plain = pooling_params is not None and pooling_params.use_activation is False
        rows = (logits if plain else special.softmax(logits, axis=1))[[prompts.index(prompt) for prompt in asked]]
        return [SimpleNamespace(outputs=SimpleNamespace(probs=row.tolist())) for row in rows]

    llm = SimpleNamespace(classify=classify)
    probabilities = np.array([answer.outputs.probs for answer in classify(prompts)])
    return {"llm": llm, "prompts": prompts, "ids": IDS, "class_names": CLASS_NAMES}, probabilities


def vllm_module() -> ModuleType:
    """As much of the module `vllm` as the example imports."""

    @dataclass(frozen=True)
    class PoolingParams:
        use_activation: bool | None = None

    module = ModuleType("vllm")
    module.PoolingParams = PoolingParams  # type: ignore[attr-defined]
    return module


EXAMPLES = [
    Example("### PyTorch", "torch.parquet", torch_half, ("torch",)),
    Example("### PyTorch", "torch.zarr", torch_bfloat16, ("torch",), ("--source-dtype", "bfloat16")),
    Example("### JAX", "jax.zarr", jax_half, ("jax",)),
    Example("### JAX", "tensorstore.zarr", jax_bfloat16, ("jax", "tensorstore"), carried=("class_names",)),
    Example("### scikit-learn", "linear.parquet", linear, ("sklearn",)),
    Example("### scikit-learn", "forest.parquet", forest, ("sklearn",)),
    Example("### scikit-learn", "binary.npy", binary, ("sklearn",), ("--link", "sigmoid"), carried=()),
    Example("### vLLM", "vllm.parquet", vllm, carried=("id", "class_names")),
]


def targets() -> NDArray[np.int64]:
    """True classes, (rows,)."""
    return np.random.default_rng(1).integers(0, CLASSES, ROWS)


def _features(rows_of_batches: int) -> list[NDArray[np.float32]]:
    features = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype("float32")
    return [features[start : start + rows_of_batches] for start in range(0, ROWS, rows_of_batches)]


def _torch(dtype: str) -> tuple[Names, Probabilities]:
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(0)
    # Dropout: only a model in evaluation mode gives the same logits twice.
    model = torch.nn.Sequential(torch.nn.Linear(FEATURES, CLASSES), torch.nn.Dropout(0.5))
    loader = [(torch.from_numpy(batch), None) for batch in _features(BATCH_ROWS)]
    with torch.inference_mode():
        model.eval()
        logits = torch.cat([model(batch) for batch, _ in loader]).to(getattr(torch, dtype))
        probabilities = torch.softmax(logits.double(), dim=1).numpy()
    model.train()
    return _given(model=model, loader=loader, truth=targets()), probabilities


def _jax(dtype: str, batch_rows: int = BATCH_ROWS) -> tuple[Names, Probabilities]:
    jax: Any = importlib.import_module("jax")
    params = np.random.default_rng(2).normal(size=(FEATURES, CLASSES)).astype("float32")
    batches = _features(batch_rows)

    def model(params: Any, inputs: Any) -> Any:
        return inputs @ params

    apply = jax.jit(model)
    logits = np.concatenate([np.asarray(apply(params, batch).astype(dtype)) for batch in batches])
    probabilities = np.asarray(jax.nn.softmax(logits.astype("float32"), axis=1))
    loader = [(batch, None) for batch in batches]
    features = np.concatenate(batches)
    return _given(model=model, params=params, loader=loader, features=features, truth=targets()), probabilities


def _labelled() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Features, and class names that follow from them, mostly: a forest is not sure of every row."""
    [features] = _features(ROWS)
    noise = np.random.default_rng(3).normal(size=(ROWS, CLASSES))
    return features, np.array(CLASS_NAMES)[np.argmax(features[:, :CLASSES] + noise, axis=1)]


def _given(**names: Any) -> Names:
    return {"class_names": CLASS_NAMES, "ids": IDS, **names}
