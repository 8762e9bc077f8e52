"""`etchr`, the one entry point: what a user does with a trained editor, and by name every other command.

Nothing heavy is imported before a command needs it, so `--help` answers at once.
"""

import asyncio
import hashlib
import importlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from etchr.families import TaskFamily
from etchr.router import DEFAULT_ROUTER, MIN_CONFIDENCE, NO_FAMILY, Route, Router, route_by_rule

if TYPE_CHECKING:
    from PIL import Image

    from etchr.editor.klein import KleinEditor
    from etchr.editor.protocol import Editor
    from etchr.editor.settings import RemoteConfig
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

# Commands with `key=value` options of their own: the module whose `main(argv)` is theirs, and what they do. All of them
# also go by `python -m`, as `accelerate launch -m` wants it.
COMMANDS = {
    "data": ("data_prep.__main__", "Make data: procedural tasks, public sources, released sets."),
    "quality": ("data_prep.quality.__main__", "Measure a data set: counts, duplicates, overlap, a contact sheet."),
    "filter": ("data_prep.filter_rl.__main__", "Keep the prompts that Stage II can learn from (Eq. 1)."),
    "sft": ("etchr.sft.__main__", "Stage I, Reasoning Imitation: train the editor's LoRA on edit pairs."),
    "rl": ("etchr.rl.__main__", "Stage II, Reasoning Enhancement: Pref-GRPO with rewards of a model."),
    "eval": ("evaluation.__main__", "Compare systems on benchmarks; tables, figures, claims."),
    "vllm": (
        "evaluation.vllm_server",
        "Serve an understanding model with vLLM, ready for the benchmarks' pictures.",
    ),
    "reader": ("etchr.nano.reader", "Serve the embedded reader as an OpenAI-compatible endpoint."),
    "base": ("etchr.nano.train", "Build and train a nano base editor."),
    "bench": ("etchr.bench.__main__", "Measure speed and memory here: sft, rl, evr or data."),
}


ImagePaths = Annotated[
    list[Path],
    typer.Option(
        "--image",
        help="Picture file: PNG, JPEG, WebP, ... of any size. Where several count, give it once for each: the first is "
        "edited, the others are its references.",
    ),
]
AUTO = "auto"
Family = Annotated[
    str, typer.Option(help=f"Kind of edit: {', '.join(TaskFamily)}, or {AUTO}: a rule guesses it from the question.")
]
MinConfidence = Annotated[
    float, typer.Option(help=f"Of a family that {AUTO} guesses; below it no edit is asked for.", min=0, max=1)
]
EditorPath = Annotated[str, typer.Option("--editor", help="A klein folder, a hub id (org/name), nano or unedited.")]
Lora = Annotated[
    str | None,
    typer.Option(help="LoRA: a file or folder, or on the hub org/name or org/name/file.safetensors."),
]
RouterPath = Annotated[Path, typer.Option("--router", help="YAML with the meta-prompt of each family.")]
Seed = Annotated[int, typer.Option(help="Seed of the edit's noise.", min=0, max=2**63 - 1)]
EditorUrls = Annotated[
    list[str] | None,
    typer.Option("--editor-url", help="Images-edit endpoint in the place of --editor; several: once per server."),
]
EditorModel = Annotated[str, typer.Option("--editor-model", help="Name of the editor that the endpoint serves.")]
EditorKey = Annotated[str, typer.Option("--editor-api-key-env", help="Environment variable with the editor's key.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps; default: the editor's own.")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance; default: the editor's own.")]


@app.command()
def ask(
    image: ImagePaths,
    question: Annotated[str, typer.Option(help="What to ask about the picture.")],
    family: Family = AUTO,
    min_confidence: MinConfidence = MIN_CONFIDENCE,
    choice: Annotated[list[str] | None, typer.Option(help="An answer option; give it once per option.")] = None,
    instruction: Annotated[str | None, typer.Option(help="Tell the editor what to draw, instead of asking it.")] = None,
    editor: EditorPath = "nano",
    lora: Lora = None,
    editor_url: EditorUrls = None,
    editor_model: EditorModel = "",
    editor_api_key_env: EditorKey = "OPENAI_API_KEY",
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
    """Edit, verify, reason: answer one question about a picture, with the editor's help where it holds up."""
    from etchr.editor.protocol import draw
    from etchr.evr import Proposal, edit_verify_reason
    from etchr.mllm.protocol import Sampling, opened
    from etchr.sample import EditSample

    chosen = _EditorChoice(editor, lora, editor_url or [], editor_model, editor_api_key_env, steps, guidance)

    async def run() -> "Trace":
        sampling = Sampling(seed=seed)
        async with opened(_model(base_url or [], model, api_key_env)) as mllm:  # a dead endpoint is found first
            if (wanted := prompt) is None:
                return await edit_verify_reason(sample, None, None, mllm, sampling)
            with chosen.opened() as drawing:

                async def propose(sample: EditSample) -> Proposal:
                    edit = (await asyncio.to_thread(draw, drawing, [sample.sources], [wanted], [seed]))[0]
                    return Proposal(edit, drawing.name, wanted, seed)

                return await edit_verify_reason(sample, propose, mllm, mllm, sampling)

    try:
        chosen.check()
        route, prompts = _route(family, question), Router.load(router)
        prompt = instruction
        if instruction is None and route.family is not None and route.asks_for_edit(min_confidence):
            prompt = prompts.prompt(question, route.family, choice)
        if len(image) > 1 and not base_url:
            raise ValueError("the embedded reader knows questions about one picture only; give --base-url and --model")
        picture, *others = pictures = _open(image)
        kind = route.family or TaskFamily.PERCEPTION  # no step of the inference reads it
        options = tuple(choice or ()) or None
        sample = EditSample(
            image[0].name, kind, "ask", picture, question, "unknown", options, more_images=tuple(others)
        )
        trace = asyncio.run(run())
        saved = _save(out, image, trace, question, route)
    except (ValueError, OSError) as error:
        _stop(error)
    if instruction is None:
        typer.echo(f"family   {_named(route, family)}")
    if prompt is None:
        typer.echo(f"edit     none asked for: {_why_none(route)}; --family asks for one")
    if trace.proposal is not None:
        width, height = trace.proposal.image.size
        for path, each in zip(image, pictures, strict=True):
            typer.echo(f"source   {path} ({each.width}x{each.height})")
        typer.echo(f"prompt   {prompt}")
        typer.echo(f"edit     {saved / 'edit.png'} ({width}x{height})")
    _print_answer(trace)
    typer.echo(f"record   {saved / 'record.json'}")


def _print_answer(trace: "Trace") -> None:
    """Verdict, answer and where it comes from; exits with the reason if there is none."""
    if trace.unscored is not None:
        _stop(f"no answer: {trace.unscored}")
    if trace.verdict is not None:
        typer.echo(f"verdict  {trace.verdict}: {trace.verdict_text}")
    typer.echo(f"answer   {trace.answer} (from the {'edit' if trace.used_edit else 'source alone'})")
    typer.echo(f"reply    {trace.answer_text}")


@app.command()
def edit(
    image: ImagePaths,
    prompt: Annotated[str, typer.Option(help="What to draw. With --family it is a question for the router.")],
    family: Annotated[
        str | None, typer.Option(help=f"Put this family's meta-prompt in front; {AUTO}: a rule guesses the family.")
    ] = None,
    min_confidence: MinConfidence = MIN_CONFIDENCE,
    editor: EditorPath = "nano",
    lora: Lora = None,
    editor_url: EditorUrls = None,
    editor_model: EditorModel = "",
    editor_api_key_env: EditorKey = "OPENAI_API_KEY",
    router: RouterPath = DEFAULT_ROUTER,
    seed: Seed = 126,
    steps: Steps = None,
    guidance: Guidance = None,
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("outputs/edit.png"),
) -> None:
    """Edit a picture."""
    from etchr.editor.protocol import draw
    from etchr.http.endpoints import CallFailed
    from etchr.images import encode_png
    from etchr.run_folder import write_atomically

    chosen = _EditorChoice(editor, lora, editor_url or [], editor_model, editor_api_key_env, steps, guidance)
    try:
        chosen.check()
        text = prompt
        if family is not None:
            route = _route(family, prompt)
            if route.family is None or not route.asks_for_edit(min_confidence):
                raise ValueError(f"no edit is asked for: {_why_none(route)}; name one with --family")
            text = Router.load(router).prompt(prompt, route.family)
        pictures = _open(image)
        with chosen.opened() as drawing:
            (made,) = draw(drawing, [pictures], [text], [seed])
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, encode_png(made))
    except (ValueError, OSError, CallFailed) as error:
        _stop(error)
    typer.echo(f"{out} ({made.width}x{made.height})")


@app.command()
def serve(
    editor: EditorPath = "nano",
    lora: Lora = None,
    name: Annotated[str | None, typer.Option(help="Name that clients ask for; default: the editor's own.")] = None,
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="OpenAI-compatible endpoint of the understanding model; default: the embedded reader."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the model that the endpoint serves.")] = "",
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the endpoint's key.")] = "OPENAI_API_KEY",
    router: RouterPath = DEFAULT_ROUTER,
    min_confidence: MinConfidence = MIN_CONFIDENCE,
    host: Annotated[
        str, typer.Option(help="Address to listen at; beyond this machine only with a key in --server-key-env.")
    ] = "127.0.0.1",
    server_key_env: Annotated[
        str, typer.Option(help="Environment variable with the key that clients must send; unset: none.")
    ] = "ETCHR_API_KEY",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any free one.", min=0, max=65535)] = 8092,
    batch_size: Annotated[int, typer.Option(help="Edits that run together.", min=1)] = 16,
    max_pixels: Annotated[
        int | None, typer.Option(help="Larger sources are scaled down; default: the editor's own.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
) -> None:
    """Serve over HTTP: chat with Edit-Verify-Reason inside for any OpenAI client, and edits (docs/serve.md)."""
    from etchr.http import listening
    from etchr.serving.app import build_app

    chosen = _EditorChoice(editor, lora, steps=steps, guidance=guidance)
    key = os.environ.get(server_key_env, "").strip()
    try:
        chosen.check()
        prompts, upstream = Router.load(router), _model(base_url or [], model, api_key_env)
        if not key and host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(f"--host {host} lets others ask: put a key for them into {server_key_env} first")
        listener = listening.bind(host, port)
        klein = chosen.load(batch_size=batch_size, max_pixels=max_pixels)
    except (ValueError, OSError) as error:
        _stop(error)
    address = f"[{host}]" if ":" in host else host
    listener.listen()  # whoever reads the line may ask at once; until here a client is refused, not kept waiting
    typer.echo(f"serving {name or klein.name} at http://{address}:{listener.getsockname()[1]}/v1")
    listening.run(build_app(klein, upstream, name, prompts, min_confidence, key), listener)


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

    from etchr.hub import push as publish

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


@dataclass(frozen=True)
class _EditorChoice:
    """What a command draws with: an editor loaded here, or endpoints that serve one."""

    editor: str
    lora: str | None
    urls: list[str] = field(default_factory=list)
    model: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    steps: int | None = None
    guidance: float | None = None

    def check(self) -> None:
        """`ValueError` for what is plainly wrong; nothing is loaded or sent."""
        if bool(self.urls) != bool(self.model):
            raise ValueError("--editor-url and --editor-model, the name of the editor served there, go together")
        if self.urls:
            if self.editor != "nano" or self.lora is not None:
                raise ValueError("--editor-url stands in the place of --editor and --lora; give one or the other")
            self._remote()
            return
        from etchr.editor import check_editor
        from etchr.editor.folder import find_lora

        check_editor(self.editor, self.lora)
        if self.lora is not None:
            find_lora(self.lora)

    @contextmanager
    def opened(self) -> Iterator["Editor"]:
        """The editor, ready for use; endpoints have answered."""
        if not self.urls:
            from etchr.editor import load_editor

            yield load_editor(self.editor, self.lora, num_inference_steps=self.steps, guidance_scale=self.guidance)
            return
        from etchr.editor.remote import RemoteEditor

        with RemoteEditor.connect(self._remote(), self.steps, self.guidance) as editor:
            yield editor

    def load(self, **options: Any) -> "KleinEditor":
        """A klein's weights, on this machine."""
        from etchr.editor.folder import named_folder
        from etchr.editor.klein import KleinEditor

        options |= {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        return KleinEditor.load(named_folder(self.editor), lora=self.lora, **options)

    def _remote(self) -> "RemoteConfig":
        from etchr.editor.settings import RemoteConfig

        return RemoteConfig(self.model, self.urls, self.api_key_env)


def _model(base_urls: list[str], model: str, api_key_env: str) -> "MLLM":
    if not base_urls:
        from etchr.nano.reader import Reader

        return Reader()
    if not model:
        raise ValueError("--base-url needs --model, the name of the model that the endpoint serves")
    from etchr.mllm.chat import ChatClient, ChatSettings

    return ChatClient(ChatSettings(tuple(base_urls), model, api_key_env))


def _route(family: str, question: str) -> Route:
    """The family that is named, or what the rule makes of the question."""
    return route_by_rule(question) if family == AUTO else Route(TaskFamily.parse(family), 1.0)


def _named(route: Route, family: str) -> str:
    """A family, and how it was found."""
    return f"{route.family or NO_FAMILY} ({route.confidence:.2f}, by rule)" if family == AUTO else f"{route.family}"


def _why_none(route: Route) -> str:
    """Why a rule asks for no edit."""
    if route.family is not None:
        return f"the family is too uncertain ({route.family}, {route.confidence:.2f})"
    return "no family's edit would help" if route.confidence else "no word of the question is known"


def _open(images: list[Path]) -> list["Image.Image"]:
    """The pictures of one edit; `ValueError` for what is none, and for more than an editor takes."""
    from etchr.editor.protocol import MAX_PICTURES
    from etchr.images import open_image

    if len(images) > MAX_PICTURES:
        raise ValueError(f"--image is given {len(images)} times; an edit takes {MAX_PICTURES} pictures at most")
    return [open_image(image) for image in images]


def _save(out: Path, images: list[Path], trace: "Trace", question: str, route: Route) -> Path:
    """Write edit and record into a folder of their own, named after the pictures, the question and the prompt."""
    from dataclasses import asdict, fields

    from etchr.images import encode_png

    proposal = trace.proposal
    values: dict[str, Any] = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name != "proposal"}
    values["usage"] = {model: asdict(usage) for model, usage in trace.usage.items()}
    if proposal is not None:
        values["edit"] = {"editor": proposal.editor, "prompt": proposal.prompt, "seed": proposal.seed}
    values |= {"question": question, "family": route.family, "confidence": round(route.confidence, 4)}
    paths = "\0".join(str(image.resolve()) for image in images)
    asked = f"{paths}\0{question}\0{values.get('edit')}"
    key = hashlib.sha256(asked.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    folder = out / f"{images[0].stem[:40]}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    if proposal is not None:
        (folder / "edit.png").write_bytes(encode_png(proposal.image))
    (folder / "record.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return folder


def _stop(error: Exception | str) -> NoReturn:
    typer.echo(f"etchr: {error}", err=True)
    raise typer.Exit(1)


def _hand_on(module: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        importlib.import_module(module).main(context.args)

    return run


for _name, (_module, _about) in COMMANDS.items():
    _words = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(_name, help=_about, add_help_option=False, context_settings=_words)(_hand_on(_module))


def main() -> None:
    """Entry point of the `etchr` command."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    app()


if __name__ == "__main__":
    main()
