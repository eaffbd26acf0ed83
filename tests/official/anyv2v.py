"""Cases of AnyV2V: how pictures are prepared, the inversion, the authors' way back and the edit, by the method itself.

The stored draws of the autoencoder are fed to it; what is inside a step stands in `anyv2v_edit`."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.backbones.i2vgen import I2VGen, along
from freemask.diffusion.guidance import guided
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.loops import invert
from freemask.diffusion.noise_paths import CLEAN
from freemask.diffusion.solvers import way
from freemask.errors import UserError
from freemask.methods.anyv2v import AnyV2V
from freemask.methods.common import paths
from freemask.types import Clip, EditTask, Given
from tests.official import anyv2v_edit
from tests.official.case import Case
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative

LONG = "a prompt is longer than the text encoder reads: the authors cut it, here it is refused, and theirs is given"


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "edited.png"
        Image.fromarray(case["input/edited_first_frame_u8"].numpy()).save(picture)
        words = lines(case, picture)
        print("freemask edit " + " ".join(words))
        config = plain(config_of("edit", [*words, *wanted.extra]))
        backbone, method = build(config["model"], "model"), build(config["method"], "method")
        run = Run(case, ledger, wanted, backbone, method)
        run.texts()
        run.times()
        run.latents()
        run.inversion()
        if "recon/latents" in case:
            anyv2v_edit.reconstruction(run)
        anyv2v_edit.compare(run)


def lines(case: Case, picture: Path) -> list[str]:
    """What a user types to get this edit, apart from the clip and the target."""
    about, options = case.about, case.about["options"]
    return [
        "method=anyv2v",
        "model=i2vgen_xl",
        quoted("model.path", str(case.model)),
        "model.device=cpu",
        f"model.dtype={about.get('dtype', 'float32')}",
        "first_frame=file",
        quoted("first_frame.path", str(picture)),
        quoted("method.negative", about["negative_prompt"]),
        f"method.steps={about['num_inference_steps']}",
        f"method.inversion_steps={about['num_inversion_steps']}",
        f"method.start={options['ddim_init_latents_t_idx']}",
        f"method.guidance={about['guidance_scale']}",
        f"method.convolution_share={options['pnp_f_t']}",
        f"method.attention_share={options['pnp_spatial_attn_t']}",
        f"method.temporal_share={options['pnp_temp_attn_t']}",
        f"method.fps={about['target_fps']}",
        f"method.inversion_prompt={'source' if about['source_prompt'] else 'empty'}",
        f"method.still={str(options.get('inverse_static_video', False)).lower()}",
        "method.inversions=null",
    ]


class Run:
    """A case, and what our side of it is made of. Latents lie as ours: f c h w."""

    def __init__(self, case: Case, ledger: Ledger, wanted: Wanted, backbone: I2VGen, method: AnyV2V) -> None:
        self.case, self.ledger, self.wanted = case, ledger, wanted
        self.backbone, self.method, self.path = backbone, method, backbone.noise_path
        self.limit = case.number("teacher_forced", 1e-4)
        self.down, up = paths(backbone, method.steps, method.inversion_steps)
        self.up = list(up)
        self.whole = wanted.free and wanted.steps is None
        frames = case["input/frames_u8"].permute(0, 3, 1, 2) / 255
        self.clip = Clip("case", frames, fps=float(case.about["target_fps"]))
        source, target = case.about["source_prompt"], case.about["editing_prompts"][0]
        self.task = EditTask("case", "case", source, target, {}, "style")
        picture = method.first_frame(backbone, self.clip, self.task, torch.Generator())
        assert not picture.warnings
        self.edited = picture.frame
        self.stored = case.latents("inv/latents")

    def steps(self, total: int) -> range:
        return range(total if self.wanted.steps is None else min(self.wanted.steps, total))

    def note(self, group: str, where: str, ours: Tensor, theirs: Tensor) -> None:
        self.ledger.note(group, FORCED, where, relative(ours, theirs), self.limit)

    def exact(self, group: str, where: str, same: bool) -> None:
        self.ledger.note(group, FORCED, where, float(not same), 0.0)

    def free(self, group: str, ours: Tensor, theirs: Tensor, key: str, default: float) -> None:
        self.ledger.note(group, FREE, "last", relative(ours, theirs), self.case.number(key, default))

    def texts(self) -> None:
        about = self.case.about
        prompts = {"inversion": about["source_prompt"], "edit_source": about["edit_source_prompt"]}
        prompts |= {"negative": about["negative_prompt"], "editing": about["editing_prompts"][0]}
        for name, prompt in prompts.items():
            try:
                text = self.backbone.embed(prompt)
            except UserError as error:
                self.ledger.remark(f"{LONG} ({str(error.came).split(',')[0]})")
                continue
            ids = self.case[f"text/{name}/ids"].tolist()
            rest = {*ids[text.length :]}
            self.exact("text: token ids", name, list(text.ids) == ids[: text.length] and len(rest) <= 1)

    def times(self) -> None:
        self.exact("times of the network", "inversion", self.up == self.case["inv/timesteps"].tolist())
        ours = list(self.down)[: self.method.steps - self.method.start][::-1]
        self.exact("times of the network", "edit", ours == self.case["edit/timesteps"].tolist())

    def latents(self) -> None:
        frames = self.clip.frames
        frames = frames[:1].expand_as(frames) if self.method.still else frames
        ours = self.backbone.encode(frames) + self.backbone.spread(frames) * self.case["draws/clip"]
        self.note("encoded frames", "vae/latents", ours, self.case.latents("vae/latents")[0])
        self.note("encoded frames", "inv/latents", ours, self.stored[0])

    def given(self, method: AnyV2V, edited: Tensor) -> Mapping[str, Given]:
        """As the method makes it. A prompt that it would not read is read by the authors."""
        try:
            return method.given(self.backbone, self.clip, self.task, edited)
        except UserError:
            given = dict(replace(method, negative="").given(self.backbone, self.clip, self.task, edited))
            given["uncond"] = given["uncond"].plus(text=self.case["edit/cond/text"][1])
            return given

    def drawn(self, given: Given, frame: Tensor, draw: Tensor) -> Given:
        """With the authors' draw from what the autoencoder allows."""
        spread = self.backbone.spread(frame[None])[0]
        return given.plus(image_latents=given.parts["image_latents"] + spread * draw)

    def conditions(self, key: str, rows: Sequence[Given]) -> None:
        """What is given, row by row, and what the network makes of the picture's latent along the frames."""
        frames = len(self.clip.frames)
        for row, given in enumerate(rows):
            ours: dict[str, Any] = dict(given.parts)
            ours["image_latents"] = along(ours["image_latents"][None], frames)[0]
            ours["image_embeddings"] = ours.pop("image")[None]
            for name, value in ours.items():
                theirs = self.case[f"{key}/cond/{name}"][row]
                if name == "fps" or not bool(theirs.any()):
                    self.exact(f"given: {name}, exactly", f"{key}, row {row}", bool((value == theirs).all()))
                else:
                    self.note(f"given: {name}", f"{key}, row {row}", value, theirs)

    def inversion(self) -> None:
        source = self.given(self.method, self.edited)["source"]
        source = self.drawn(source, self.clip.frames[0], self.case["draws/inversion_condition"][0])
        self.conditions("inv", [source])
        predict = guided(self.backbone, source, stream="source")
        outputs = dict(zip((0, len(self.up) - 1), self.case.latents("inv/unet_out"), strict=True))
        for j in self.steps(len(self.up)):
            self.wanted.progress("inversion, step by step", j, len(self.up))
            x, t = self.stored[j], self.up[j]
            if j in outputs:
                self.note("inversion: network output", f"step {j}", predict(x, t), outputs[j])
            made = way(self.method.solver, self.path, predict)(x, [CLEAN, *self.up][j], t)
            self.note("inversion: latents", f"step {j}", made, self.stored[j + 1])
        if self.whole:
            options = {"solver": self.method.solver, "progress": self.wanted.progress}
            free = invert(self.backbone, self.stored[0], predict, self.up, **options)
            self.free("inversion: latents", free[-1], self.stored[-1], "inversion_free_running", 1e-3)

    def inverted(self) -> Inversion:
        return Inversion(list(self.stored), self.up)

    def decoded(self, key: str, latents: Tensor) -> None:
        """Rounded to bytes: what is beyond the nearest one counts."""
        theirs = self.case[f"{key}/frames_u8_down"].permute(0, 3, 1, 2).double()
        ours = self.backbone.decode(latents)[..., 2::4, 2::4].double() * 255
        beyond = ((ours - theirs).abs() - 0.5).clamp(min=0)
        error = float(beyond.norm() / theirs.norm())
        self.ledger.note("decoded frames, beyond rounding", FORCED, key, error, self.limit)
