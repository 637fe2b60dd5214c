"""RUN.yaml: everything that decides a training run, checked before any work starts.

Descriptions of the fields are the comments of `mmedge train --print-config`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmedge.errors import UsageError
from mmedge.modality import Derive

HINT = "mmedge train --print-config shows every key"
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """A part of the file. Unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SensorConfig(Section):
    name: str = Field(description="optical, sar, elevation, or any name of your own")
    bands: tuple[str, ...] = Field(min_length=1, description="matched by name, never by position")
    unit: Literal["reflectance", "dB", "m", "raw"] = Field(description="what the network gets; files are converted")
    gsd_m: float = Field(gt=0, description="pixel size in metres that maps are made at")
    derive: Derive | None = Field(
        default=None,
        description="in place of absolute elevation, height above the surroundings and slope: relief looks at the "
        "whole window, terrain 7 pixels around, so that a convolutional network's maps have no seams",
    )


class SceneConfig(Section):
    scene: str | None = Field(
        default=None, description="a multi-band GeoTIFF or STAC Item; or leave it out and give sources"
    )
    sources: dict[str, tuple[str, ...]] = Field(default={}, description="files of each sensor; a sensor may be missing")
    bands: dict[str, tuple[str, ...]] = Field(default={}, description="names of a sensor's bands, in file order")
    scale: dict[str, tuple[float, float]] = Field(
        default={}, description="[scale, offset] of a sensor, over the file's own"
    )
    unit: dict[str, Literal["dB", "linear", "amplitude"]] = Field(default={}, description="radar as stored")
    masks: dict[str, tuple[str, ...]] = Field(
        default={}, description="rasters that are not 0 where the sensor is unusable"
    )
    reference: str | None = Field(default=None, description="the sensor whose grid is used; null: the finest that fits")
    labels: Path = Field(description="a raster of class values, or polygons or points (GeoPackage, GeoJSON, ...)")
    field: str | None = Field(default=None, description="the attribute of a vector file that holds the class")
    part: Literal["train", "validate", "test"] | None = Field(
        default=None, description="null: split into squares, see split"
    )

    @model_validator(mode="after")
    def _one_place(self) -> SceneConfig:
        if (self.scene is None) == (not self.sources):
            raise ValueError("give either `scene` or `sources`")
        return self


class ClassConfig(Section):
    value: int = Field(ge=0, le=254, description="in labels and in maps")
    name: str
    color: str = Field(pattern=r"^[0-9A-Fa-f]{6}$", description="hexadecimal RGB")


class SplitConfig(Section):
    block_px: int | None = Field(
        default=None, ge=8, description="side of the squares; null: as large as leaves about 64"
    )
    shares: tuple[Share, Share, Share] = Field(default=(0.6, 0.2, 0.2), description="of training, validation and test")
    seed: int | None = Field(default=None, description="null: that of the run")


class NetworkConfig(Section):
    method: str = Field(
        default="mamol",
        description="mamol, mars, dymo, dropout, ...: docs/methods.md; compared in docs/results/benchmarks.md",
    )
    encoder: str = Field(default="unet", description="unet, vit, or galileo (Sentinel-2, Sentinel-1, relief alone)")
    options: dict[str, Any] = Field(default={}, description="of the method, such as {experts: 8, top_k: 3}")
    encoder_options: dict[str, Any] = Field(default={}, description="of the encoder, such as {depth: 2}")


class MissingConfig(Section):
    sampler: Literal["uniform", "fixed", "guided", "realistic"] = Field(
        default="uniform",
        description="uniform over all sets of sensors; fixed: a square of the scene always loses the same (MaMOL);"
        " guided: as the method wishes (MARS), else uniform; realistic: failures as simulate-failure makes them",
    )
    eta: Share = Field(default=0.7, description="of `fixed` and `realistic`: the share that loses something")
    holes: Share = Field(default=0.5, description="share of the windows with holes (not where realistic)")


class AugmentConfig(Section):
    turns: bool = Field(default=True, description="quarter turns")
    flips: bool = True
    gain: dict[str, float] = Field(
        default={"reflectance": 0.06},
        description="standard deviation of a factor around 1, by unit: illumination, haze",
    )
    shift: dict[str, float] = Field(
        default={"dB": 0.6, "reflectance": 0.005}, description="standard deviation of a summand, by unit: calibration"
    )


class BalanceConfig(Section):
    windows: Share = Field(default=0.5, description="0: windows as they come; 1: drawn around each class equally often")
    loss: Share = Field(default=0.0, description="0: every pixel weighs the same; 1: every class does")


class OptimiserConfig(Section):
    steps: int = Field(default=600, ge=1)
    batch: int = Field(default=8, ge=1, description="windows a step")
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=2e-2, ge=0)
    average: float = Field(
        default=0.98, ge=0, lt=1, description="decay of the moving average of the weights, which is kept"
    )
    check_every: int = Field(default=50, ge=1, description="steps between validations, each a checkpoint")
    patience: int = Field(default=6, ge=1, description="validations without a better one before training stops")
    validate_windows: int = Field(default=64, ge=1, description="at most so many windows a validation")
    amp: bool = Field(default=True, description="bfloat16 on a GPU; nothing on a CPU")
    threads: int = Field(default=1, ge=0, description="CPU threads of torch; 0: as torch likes")


class RunConfig(Section):
    name: Name = Field(default="my-model", description="of the model; the bundle is written to the folder `out`")
    out: Path | None = Field(default=None, description="null: a folder of that name")
    description: str = ""
    license: str = Field(default="other", description="of the weights: an SPDX identifier, or other")
    license_file: Path | None = Field(default=None, description="its text, copied into the bundle")
    seed: int = Field(default=0, ge=0)
    scenes: tuple[SceneConfig, ...] = Field(min_length=1, description="what to learn from")
    sensors: tuple[SensorConfig, ...] | None = Field(
        default=None, description="inputs of the network; null: every sensor and band of the scenes"
    )
    classes: tuple[ClassConfig, ...] | None = Field(
        default=None, description="null: the values in the labels, named by the raster if it names them"
    )
    window_px: int = Field(default=64, ge=16, description="side of the training windows")
    halo_px: int = Field(default=8, ge=0, description="margin of a window that a map does not use (attention models)")
    split: SplitConfig = Field(default=SplitConfig(), description="squares that train, validate and test")
    network: NetworkConfig = Field(default=NetworkConfig())
    missing: MissingConfig = Field(default=MissingConfig(), description="which sensors are taken away in training")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="changes that leave the classes as they are")
    balance: BalanceConfig = Field(default=BalanceConfig(), description="rare classes")
    fit: OptimiserConfig = Field(default=OptimiserConfig())

    @property
    def folder(self) -> Path:
        """Where the bundle is written."""
        return self.out or Path(self.name)


def read_config(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """A run file, some of its keys set anew: `network.method=dymo`, `scenes.0.part=test`. Paths in it are relative to
    the current folder. Raises UsageError with the key that is wrong.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(
            f"cannot read `{path}`: {err.strerror}", hint="mmedge train --print-config > RUN.yaml"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(f"`{path}` is not YAML: {err}", hint=HINT) from None
    for setting in settings:
        _set(document, setting)
    try:
        return RunConfig.model_validate(document)
    except ValidationError as err:
        raise _explained(err, path) from None


def _set(document: Any, setting: str) -> None:
    """Put the value of KEY=VALUE where KEY says; the value is YAML."""
    key, equals, text = setting.partition("=")
    hint = f"e.g. --set network.method=dymo; {HINT}"
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise UsageError(f"`--set {setting}`: the value is not YAML: {err}", hint=hint) from None
    if not equals:
        raise UsageError(f"`--set {setting}` is not KEY=VALUE", hint=hint)
    *parents, last = key.split(".")
    try:
        place = document
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else place[int(parent)]
        place[last if isinstance(place, dict) else int(last)] = value
    except (ValueError, IndexError, TypeError):
        raise UsageError(f"`--set {setting}`: the run file has no `{key}`", hint=hint) from None


def _explained(err: ValidationError, path: Path) -> UsageError:
    """The first mistake in words, the number of the others."""
    first, *others = err.errors()
    place = ".".join(str(p) for p in first["loc"])
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        key, known = str(first["loc"][-1]), _keys(first["loc"][:-1])
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean `{near[0]}`? " if near else f"known here: {', '.join(known)}; "
        return UsageError(f"`{path}`: unknown key `{place}`{more}", hint=hint + HINT)
    return UsageError(f"`{path}`: `{place or 'file'}`: {first['msg']}{more}", hint=HINT)


def _keys(loc: tuple[int | str, ...]) -> list[str]:
    """Keys of the section at a place of the file."""
    section: type[BaseModel] = RunConfig
    for part in loc:
        if isinstance(part, str) and part in section.model_fields:
            section = _section(section.model_fields[part].annotation) or section
    return list(section.model_fields)


def _section(annotation: Any) -> type[Section] | None:
    """The section class inside an annotation such as `tuple[SceneConfig, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((s for arg in getattr(annotation, "__args__", ()) if (s := _section(arg))), None)


def print_config(config: RunConfig) -> str:
    """The file, complete and commented. Reading it gives `config` again."""
    head = "# A training run: mmedge train RUN.yaml. Paths are relative to the folder where the command runs.\n"
    return head + "\n".join(_lines(config, ""))


def _lines(section: Section, indent: str, *, notes: bool = True) -> list[str]:
    lines = []
    for key, info in type(section).model_fields.items():
        value = getattr(section, key)
        note = f"  # {info.description}" if info.description and notes else ""
        if isinstance(value, Section):
            lines += [f"{indent}{key}:{note}", *_lines(value, indent + "  ")]
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            lines.append(f"{indent}{key}:{note}")
            for i, one in enumerate(value):
                first, *rest = _lines(one, indent + "    ", notes=i == 0)
                lines += [f"{indent}  - {first.strip()}", *rest]
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}{note}")
    return lines


def _scalar(value: Any) -> str:
    """A value in YAML's flow style, which holds JSON."""
    plain = json.loads(json.dumps(value, default=str))
    return json.dumps(plain, ensure_ascii=False)
