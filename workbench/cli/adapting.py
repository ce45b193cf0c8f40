"""The command that looks at a LoRA adapter: adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.base import Device, Json, Kernel, app, print_json

if TYPE_CHECKING:
    from workbench.adapters import AdapterFile


@app.command()
def adapter(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A folder or a Hugging Face id (owner/name, owner/name@revision)."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Base model: also see whether the adapter fits it, and acts."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write it for PEFT, vLLM and the hosted service."),
    ] = None,
    model_type: Annotated[
        str | None, typer.Option(help="With --export: the field that the hosted service wants.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="With --export: the base that its configuration names from then on."),
    ] = None,
    convert: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="PATH holds a pickle: write it anew as safetensors, and look at that.",
        ),
    ] = None,
    json_out: Json = False,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Look at a LoRA adapter: what it is, if it fits and acts.

    Example: workbench adapter ./adapters/terse --model demo
    """
    from workbench import adapters

    for option, value in (("--model-type", model_type), ("--base", base)):
        if value is not None and export is None:
            raise typer.BadParameter("goes with --export", param_hint=option)
    if convert is not None:
        from workbench.engines.local.pickles import convert_pickle

        file = convert_pickle(adapters.find(path, pickles=True).folder, convert)
    else:
        file = adapters.read(path)
    found: dict[str, Any] = {"path": str(file.path), **adapters.describe(file)}
    if model is not None:
        found["fit"] = _fit(file, model, device, kernel)
    name = file.name
    if export is not None:
        file = adapters.read(adapters.export(file, export, model_type=model_type, base=base))
        found["exported"], name = str(export), file.name
    found["elsewhere"] = list(adapters.hosted_limits(file, name=name))
    print_json(found) if json_out else typer.echo(_text(found))


def _fit(file: AdapterFile, model: str, device: str | None, kernel: str | None) -> dict[str, Any]:
    """What loading it into a model shows."""
    from workbench import adapters, api

    engine = api.load_engine(model, device=device or "auto", kernel=kernel or "auto")
    try:
        loaded = engine.load_adapter(file.path, "adapter")
        about = loaded.to_dict()
        names = ("n_matched", "matched", "shift_nats", "base_matches")
        note = adapters.mismatch(file.name, about, model, engine.info.weight_hash)
        return {"model": model, **{n: about[n] for n in names}, "warning": note}
    finally:
        engine.close()


def _text(found: dict[str, Any]) -> str:
    """For people: a line a fact."""
    fit = found.get("fit")
    lines = {
        "adapter": found["path"],
        **({"from": found["origin"]} if found["origin"] else {}),
        "content": found["sha256"][:16],
        "rank": _span(found.get("ranks", found["rank"])),
        "alpha": f"{_span(found['alpha'])} (scale {_span(found['scale'])}{', rsLoRA' if found['rslora'] else ''})",
        "layers": f"{found['n_modules']:,} ({', '.join(found['targets'])})",
        "size": f"{found['n_parameters']:,} parameters, {found['n_bytes'] / 1e6:.1f} MB, {found['dtype']}",
        "made for": found["base"] or "not recorded",
    }
    if fit is not None:
        kinds = ", ".join(f"{kind} {n}" for kind, n in fit["matched"].items())
        lines["fits"] = f"{fit['model']}: all {fit['n_matched']:,} layers matched ({kinds})"
        lines["acts"] = (
            f"moves a token's log-probability by {fit['shift_nats']:.2g} nats on average"
        )
        if fit["warning"]:
            lines["warning"] = fit["warning"]
    if "exported" in found:
        lines["written to"] = found["exported"]
    text = [f"{name:<12} {value}" for name, value in lines.items()]
    elsewhere = found["elsewhere"] or ["Within the limits of vLLM and Workers AI."]
    return "\n".join([*text, "", "Elsewhere:", *(f"- {said}" for said in elsewhere)])


def _span(value: float | list[float]) -> str:
    """One number, or the first and last of several."""
    numbers = value if isinstance(value, list) else [value]
    return " to ".join(f"{n:g}" for n in dict.fromkeys([numbers[0], numbers[-1]]))
