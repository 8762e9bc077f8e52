"""`etchr ask | edit | merge | export | push`: one command for each thing a user does with a trained editor.

Nothing heavy is imported before a command needs it, so `--help` answers at once.
"""

import asyncio
import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from etchr.families import TaskFamily
from etchr.router import DEFAULT_ROUTER, Router

if TYPE_CHECKING:
    from PIL import Image

    from etchr.editor.klein import KleinEditor
    from etchr.evr import Trace
    from etchr.mllm.protocol import MLLM

app = typer.Typer(
    help="Think with images: a question-conditioned editor draws what makes the answer visible.\n\n"
    "The default editor is nano, a few million weights kept in the repository; the default model is the embedded "
    "reader. Both know the procedural tasks only. FLUX.2-klein-base-9B is under a non-commercial licence, "
    "FLUX.2-klein-base-4B under Apache-2.0.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ImagePath = Annotated[Path, typer.Option("--image", help="Picture file: PNG, JPEG, WebP, ... of any size.")]
Family = Annotated[str, typer.Option(help=f"Kind of edit: {', '.join(TaskFamily)}.")]
EditorPath = Annotated[str, typer.Option("--editor", help="A klein folder, a hub id such as org/name, or nano.")]
Lora = Annotated[str | None, typer.Option(help="LoRA file or folder for the editor.")]
RouterPath = Annotated[Path, typer.Option("--router", help="YAML with the meta-prompt of each family.")]
Seed = Annotated[int, typer.Option(help="Seed of the edit's noise.", min=0, max=2**63 - 1)]
Steps = Annotated[int | None, typer.Option(help="Denoising steps; default: the editor's own.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance; default: the editor's own.")]


@app.command()
def ask(
    image: ImagePath,
    question: Annotated[str, typer.Option(help="What to ask about the picture.")],
    family: Family = "perception",
    choice: Annotated[list[str] | None, typer.Option(help="An answer option; give it once per option.")] = None,
    instruction: Annotated[str | None, typer.Option(help="Tell the editor what to draw, instead of asking it.")] = None,
    editor: EditorPath = "nano",
    lora: Lora = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="OpenAI-compatible endpoint; default: the embedded reader.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the model that the endpoint serves.")] = "",
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    router: RouterPath = DEFAULT_ROUTER,
    seed: Seed = 126,
    steps: Steps = None,
    guidance: Guidance = None,
    out: Annotated[Path, typer.Option(help="Folder for the edit and the record.")] = Path("outputs/ask"),
) -> None:
    """Edit, verify, reason: answer one question about one picture, with the editor's help where it holds up."""
    from etchr.editor.klein import check_folder
    from etchr.evr import EvrSettings, Proposal, edit_verify_reason
    from etchr.images import open_image
    from etchr.mllm.protocol import opened
    from etchr.sample import EditSample

    async def run() -> "Trace":
        async with opened(_model(base_url or [], model, api_key_env)) as mllm:  # a dead endpoint is found first
            klein = await asyncio.to_thread(_load, folder, lora, steps, guidance)

            async def propose(sample: EditSample) -> Proposal:
                edit = (await asyncio.to_thread(klein.edit, [sample.image], [prompt], [seed]))[0]
                return Proposal(edit, klein.name, prompt, seed)

            return await edit_verify_reason(sample, propose, mllm, mllm, EvrSettings(seed=seed))

    try:
        folder = _folder(editor)
        check_folder(folder)
        prompt = Router.load(router).prompt(question, family) if instruction is None else instruction
        picture = open_image(image)
        sample = EditSample(
            image.name, TaskFamily.parse(family), "ask", picture, question, "unknown", tuple(choice or ()) or None
        )
        trace = asyncio.run(run())
        saved = _save(out, image, trace)
    except (ValueError, OSError) as error:
        _stop(error)
    if trace.proposal is not None:
        width, height = trace.proposal.image.size
        typer.echo(f"source   {image} ({picture.width}x{picture.height})")
        typer.echo(f"prompt   {prompt}")
        typer.echo(f"edit     {saved / 'edit.png'} ({width}x{height})")
    if trace.unscored is not None:
        _stop(f"no answer: {trace.unscored}")
    typer.echo(f"verdict  {trace.verdict}: {trace.verdict_text}")
    typer.echo(f"answer   {trace.answer} (from the {'edit' if trace.used_edit else 'source alone'})")
    typer.echo(f"reply    {trace.answer_text}")
    typer.echo(f"record   {saved / 'record.json'}")


@app.command()
def edit(
    image: ImagePath,
    prompt: Annotated[str, typer.Option(help="What to draw. With --family it is a question for the router.")],
    family: Annotated[str | None, typer.Option(help="Put this family's meta-prompt in front.")] = None,
    editor: EditorPath = "nano",
    lora: Lora = None,
    router: RouterPath = DEFAULT_ROUTER,
    seed: Seed = 126,
    steps: Steps = None,
    guidance: Guidance = None,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("outputs/edit.png"),
) -> None:
    """Edit one picture."""
    from etchr.editor.klein import check_folder
    from etchr.images import encode_png, open_image

    try:
        folder = _folder(editor)
        check_folder(folder)
        text = Router.load(router).prompt(prompt, family) if family else prompt
        picture = open_image(image)
        made: Image.Image = _load(folder, lora, steps, guidance).edit([picture], [text], [seed])[0]
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(encode_png(made))
    except (ValueError, OSError) as error:
        _stop(error)
    typer.echo(f"{out} ({made.width}x{made.height})")


@app.command()
def merge(
    base: Annotated[Path, typer.Option(help="Klein folder that the LoRA was trained on.")],
    lora: Annotated[Path, typer.Option(help="LoRA file or folder, in any of the layouts that are read.")],
    out: Annotated[Path, typer.Option(help="New klein folder.")],
    scale: Annotated[float, typer.Option(help="Strength of the LoRA.")] = 1.0,
    partial: Annotated[bool, typer.Option(help="Accept a LoRA that was trained on some of the layers only.")] = False,
) -> None:
    """Fuse a LoRA into its base; fails unless every targeted weight changed."""
    from etchr.editor.lora_export import merge_folder

    try:
        typer.echo(f"merged into {merge_folder(base, lora, out, scale, partial=partial)}")
    except (ValueError, OSError) as error:
        _stop(error)


@app.command()
def export(
    lora: Annotated[Path, typer.Option(help="LoRA file or folder.")],
    out: Annotated[Path, typer.Option(help="New .safetensors file.")],
) -> None:
    """Write a LoRA under the original BFL / ComfyUI key names."""
    from etchr.editor.lora_export import export_bfl

    try:
        typer.echo(f"exported to {export_bfl(lora, out)}")
    except (ValueError, OSError) as error:
        _stop(error)


@app.command()
def push(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Adapter folder or klein folder, with a model card README.md.")],
    repo_id: Annotated[str, typer.Argument(help="Repository as owner/name; made if it does not exist.")],
    public: Annotated[bool, typer.Option("--public", help="Anybody may see it; else it is private.")] = False,
    message: Annotated[str | None, typer.Option(help="What changed, for the repository's history.")] = None,
) -> None:
    """Upload an adapter or a model to the Hugging Face hub, with the login of `hf auth login` or HF_TOKEN."""
    from tqdm import tqdm

    from etchr import publish

    try:
        plan = publish.plan(folder, repo_id)
        for name, size in plan.sizes.items():
            typer.echo(f"{tqdm.format_sizeof(size, 'B'):>8}  {name}")
        typer.echo(f"{len(plan.sizes)} files to {repo_id}, {'public' if public else 'private'}")
        if public and plan.licence:
            typer.echo(
                f"licence  {plan.licence}: binds everybody who downloads this; FLUX's allows non-commercial use only"
            )
        url = publish.upload(plan, public=public, message=message, api=context.obj)  # obj: a test's stand-in for HfApi
    except (ValueError, OSError) as error:
        _stop(error)
    typer.echo(url)


def _folder(editor: str) -> str:
    if editor != "nano":
        return editor
    from etchr.editor.klein import NANO_BASE

    return str(NANO_BASE)


def _load(folder: str, lora: str | None, steps: int | None, guidance: float | None) -> "KleinEditor":
    from etchr.editor.klein import KleinEditor

    if lora is not None and not Path(lora).exists():
        raise ValueError(f"no LoRA at {lora}")
    return KleinEditor.load(folder, lora=lora, num_inference_steps=steps, guidance_scale=guidance)


def _model(base_urls: list[str], model: str, api_key_env: str) -> "MLLM":
    if not base_urls:
        from etchr.mllm.reader import Reader

        return Reader()
    if not model:
        raise ValueError("--base-url needs --model, the name of the model that the endpoint serves")
    from etchr.mllm.chat import ChatClient, ChatSettings

    return ChatClient(ChatSettings(tuple(base_urls), model, api_key_env))


def _save(out: Path, image: Path, trace: "Trace") -> Path:
    """Write edit and record into a folder of their own, named after the picture and the prompt."""
    from dataclasses import fields

    from etchr.images import encode_png

    proposal = trace.proposal
    values: dict[str, Any] = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name != "proposal"}
    if proposal is not None:
        values["edit"] = {"editor": proposal.editor, "prompt": proposal.prompt, "seed": proposal.seed}
    key = hashlib.sha256(f"{image.resolve()}\0{values.get('edit')}".encode()).hexdigest()[:8]
    folder = out / f"{image.stem[:40]}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    if proposal is not None:
        (folder / "edit.png").write_bytes(encode_png(proposal.image))
    (folder / "record.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return folder


def _stop(error: Exception | str) -> NoReturn:
    typer.echo(f"etchr: {error}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Entry point of the `etchr` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    app()


if __name__ == "__main__":
    main()
