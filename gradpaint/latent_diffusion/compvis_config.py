"""What CompVis's config.yaml says of a model beyond its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROCESS = ("timesteps", "linear_start", "linear_end", "scale_factor")
_UNET = ("num_heads", "num_head_channels", "dropout")


def settings_of(config: Mapping | str | Path) -> dict[str, Any]:
    """`checkpoint.SETTINGS` from a config.yaml (a path, needs PyYAML) or from what lies in one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: something else than such a config, or a model that is trained otherwise (not on noise).
    """
    content = config if isinstance(config, Mapping) else _read(Path(config))
    model = content.get("model") if isinstance(content, Mapping) else None
    params = model.get("params") if isinstance(model, Mapping) else None
    if not isinstance(params, Mapping):
        raise ValueError("config must hold model.params, as CompVis's config.yaml does")
    for name, only in (("parameterization", "eps"), ("beta_schedule", "linear")):
        if params.get(name, only) != only:
            raise ValueError(f"config has {name} {params[name]!r}; only {only!r} can be loaded")
    settings = {name: params[name] for name in _PROCESS if name in params}
    unet = params.get("unet_config", {}).get("params", {})
    told = {name: unet[name] for name in _UNET if name in unet and unet[name] != -1}
    first_stage = params.get("first_stage_config", {}).get("params", {})
    resolution = first_stage.get("ddconfig", {}).get("resolution")
    return settings | told | ({} if resolution is None else {"image_size": resolution})


def _read(path: Path) -> Any:
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"no such config: {path}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file: {str(error).splitlines()[0]}") from error
