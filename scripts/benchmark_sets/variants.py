"""Methods with an option changed, named `method:change`: each part of a method switched off, and our extension of MARS.

They train as the method does: same encoder, steps and batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Variant:
    """A `method` with other `options`; `text` says what is different.

    `after`: options that matter when a map is made alone, so that the method's own training run serves (and is taken up
    where it lies in the folder of runs).
    """

    method: str
    text: str
    options: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)


EXTENSIONS = {
    "mars:deployed": Variant("mars", "incomplete inputs train the route that maps take, too", {"deployed": 1.0}),
}
ABLATIONS = {
    "mamol:no-shared": Variant("mamol", "no shared expert", {"shared": False}),
    "mamol:no-dynamic": Variant("mamol", "no dynamic experts, hence no router", {"dynamic": 0}),
    "mamol:no-special": Variant("mamol", "no modality-specific experts", {"special": False}),
    "mamol:blind-router": Variant("mamol", "a router that does not know what is missing", {"aware": False}),
    "mamol:top-1": Variant("mamol", "one dynamic expert a token, not both", {"top_k": 1}),
    "mamol:variant-a": Variant("mamol", "every sensor's expert in every tower (variant A)", {"variant": "A"}),
    "mamol:no-adapters": Variant(
        "mamol", "no adapters: fusion and head alone learn what is missing", {"adapted": "none"}
    ),
    "mars:no-residual": Variant("mars", "no residual router: one, which reads what is left", {"residual": False}),
    "mars:no-noise-ranking": Variant("mars", "no ranking of the routing noise", {"noise": 0.0}),
    "mars:no-guidance": Variant("mars", "incomplete patterns equally often, not by discrepancy", {"temperature": 1e9}),
    "mars:no-imitation": Variant("mars", "no imitation: complete data teach the deployed router", {"imitation": 0.0}),
    "mars:no-balance": Variant("mars", "no load balance", {"balance": 0.0}),
    "dymo:no-similarity": Variant("dymo", "no intra-class similarity in the reward", after={"similar": False}),
    "dymo:at-once": Variant("dymo", "all positive rewards at once, not one by one", after={"iterative": False}),
    "dymo:no-prototypes": Variant("dymo", "no prototype loss in training", {"prototype": 0.0}),
}  # fmt: skip
VARIANTS = {**EXTENSIONS, **ABLATIONS}


def variant_of(name: str) -> Variant:
    """Of a plain method: itself."""
    return VARIANTS[name] if name in VARIANTS else Variant(name, "")
