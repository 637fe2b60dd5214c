"""Networks by name, from plain values that YAML and JSON can hold.

A recipe::

    {"method": "mars", "encoder": "unet", "channels": {"optical": 9, "sar": 2}, "classes": 7, "task": "map",
     "encoder_options": {"depth": 2}, "options": {"experts": 8, "top_k": 3}}

Only `method`, `channels` and `classes` are needed. A network keeps its recipe, and its weights file carries it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from mmedge.edge.models.baselines import Fill, ModalityDropout, Specialists
from mmedge.edge.models.dymo import DyMo, DyMoConfig
from mmedge.edge.models.encoders import Encoder
from mmedge.edge.models.galileo_encoder import GalileoEncoder
from mmedge.edge.models.mamol import CHANNELS, MaMOL, MaMOLConfig
from mmedge.edge.models.mamol_staged import StagedConfig, StagedMaMOL
from mmedge.edge.models.mars import Mars, MarsConfig
from mmedge.edge.models.network import Network
from mmedge.edge.models.plain import Plain
from mmedge.edge.models.unet import UNet
from mmedge.edge.models.vit import ViT
from mmedge.errors import UsageError

Recipe = Mapping[str, Any]

ENCODERS: Mapping[str, Callable[..., Encoder]] = {"unet": UNet, "vit": ViT, "galileo": GalileoEncoder}


def build(recipe: Recipe) -> Network:
    """An untrained network. Weights are drawn from torch's global generator.

    Raises UsageError where a name or an option does not exist.
    """
    full = {"encoder": "unet", "task": "map", "encoder_options": {}, "options": {}, **recipe}
    make: Callable[[Recipe], Network] = _named("method", full["method"], METHODS)
    if full["task"] not in ("map", "window"):
        raise UsageError(f"no task `{full['task']}`", hint="map: a class for each pixel; window: one for each window")
    try:
        network = make(full)
    except (TypeError, ValueError) as err:
        raise UsageError(f"cannot build `{full['method']}` on `{full['encoder']}`: {err}") from err
    network.recipe = full
    return network


def adopt(network: Network, trained: MaMOL) -> None:
    """Give a network on Galileo the frozen parts of another. Without them it would stand on a random backbone."""
    for part in network.modules():
        if isinstance(part, GalileoEncoder):
            part.adopt(trained)
        elif isinstance(part, MaMOL):
            for name in ("stems", "blocks", "norm"):
                part.get_submodule(name).load_state_dict(trained.get_submodule(name).state_dict())


def _encoder(recipe: Recipe, **options: Any) -> Encoder:
    make = _named("encoder", recipe["encoder"], ENCODERS)
    return cast(Encoder, make(recipe["channels"], **recipe["encoder_options"], **options))


def _named(what: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"no {what} `{name}`", hint=f"one of {', '.join(table)}")
    return table[name]


def _on_galileo(kind: type[MaMOL], recipe: Recipe) -> Network:
    if dict(recipe["channels"]) != CHANNELS or recipe["task"] != "map":
        raise ValueError(f"Galileo takes {CHANNELS} and gives maps")
    return kind(MaMOLConfig(classes=recipe["classes"], **recipe["options"]))


def _mamol(recipe: Recipe) -> Network:
    if recipe["encoder"] == "galileo":
        return _on_galileo(MaMOL, recipe)
    return StagedMaMOL(_encoder(recipe), recipe["classes"], recipe["task"], StagedConfig(**recipe["options"]))


def _dropout(recipe: Recipe) -> Network:
    if recipe["encoder"] == "galileo":
        return _on_galileo(ModalityDropout, recipe)
    return Plain(_encoder(recipe), recipe["classes"], recipe["task"], **recipe["options"])


def _mars(recipe: Recipe) -> Network:
    return Mars(_encoder(recipe), recipe["classes"], recipe["task"], MarsConfig(**recipe["options"]))


def _dymo(recipe: Recipe, **fixed: Any) -> Network:
    encoder = _encoder(recipe, decode=recipe["task"] == "map")
    return DyMo(encoder, recipe["classes"], recipe["task"], DyMoConfig(**recipe["options"], **fixed))


def _impute_all(recipe: Recipe) -> Network:
    return _dymo(recipe, accept="all")


def _zero_fill(recipe: Recipe) -> Network:
    return Fill(_encoder(recipe), recipe["classes"], recipe["task"], value="zero", **recipe["options"])


def _mean_fill(recipe: Recipe) -> Network:
    return Fill(_encoder(recipe), recipe["classes"], recipe["task"], value="mean", **recipe["options"])


def _specialists(recipe: Recipe) -> Network:
    def make(channels: Mapping[str, int]) -> Plain:
        return Plain(_encoder({**recipe, "channels": channels}), recipe["classes"], recipe["task"])

    return Specialists(make, recipe["channels"], **recipe["options"])


METHODS: Mapping[str, Callable[[Recipe], Network]] = {
    "mamol": _mamol,
    "mars": _mars,
    "dymo": _dymo,
    "dropout": _dropout,
    "zero-fill": _zero_fill,
    "mean-fill": _mean_fill,
    "specialists": _specialists,
    "impute-all": _impute_all,
}
