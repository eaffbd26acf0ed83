"""Cases of TokenFlow: texts, frames, the inversion and where an edit begins; its steps stand in `tokenflow_edit`."""

from torch import Tensor

from experiments.cli.quoting import quoted
from experiments.config.build import build
from experiments.config.compose import config_of, plain
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN, noise_between
from freemask.methods.common import paths
from freemask.methods.pnp import first_latent
from freemask.methods.tokenflow import TokenFlow
from freemask.types import Backbone
from tests.official import tokenflow_edit
from tests.official.case import Case
from tests.official.control import tokenflow_inversion
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    if "controlnet_dir" in case.about:
        tokenflow_inversion(case, ledger, wanted)
        return
    words = lines(case)
    print("freemask edit " + " ".join(words))
    config = plain(config_of("edit", words))
    backbone, method = build(config["model"], "model"), build(config["method"], "method")
    run = Run(case, ledger, backbone, method)
    run.texts()
    run.codec()
    count = len(run.up) if wanted.steps is None else min(wanted.steps, len(run.up))
    run.inversion(count)
    if wanted.free and count == len(run.up):
        run.on_its_own(wanted)
    if "edit/init_latents" in case:
        run.start()
        tokenflow_edit.compare(run, wanted)


def lines(case: Case) -> list[str]:
    """What a user types to get this edit, or its inversion where there is no more."""
    about, options = case.about, case.about.get("options", {})
    target = (about.get("editing_prompts") or [about["source_prompt"]])[0]
    return [
        "method=tokenflow",
        "model=sd14",
        quoted("model.path", str(case.model)),
        "model.device=cpu",
        f"model.dtype={about.get('dtype', 'float32')}",
        quoted("source", about["source_prompt"]),
        quoted("target", target),
        quoted("method.negative", about.get("negative_prompt", "")),
        f"method.steps={about.get('num_inference_steps', about['num_inversion_steps'])}",
        f"method.inversion_steps={about['num_inversion_steps']}",
        f"method.guidance={about.get('guidance_scale', 1)}",
        f"method.base={'sdedit' if 'sdedit' in about.get('variant', '').lower() else 'pnp'}",
        f"method.chunk={about.get('batch_size', about['frames'])}",
        f"method.convolution_share={options.get('pnp_f_t', 0)}",
        f"method.attention_share={options.get('pnp_attn_t', 0)}",
        f"method.strength={options.get('start', 1)}",
        "method.inversions=null",
    ]


class Run:
    """A case, and what our side of it is made of. Latents are stored as ours lie: f c h w."""

    def __init__(self, case: Case, ledger: Ledger, backbone: Backbone, method: TokenFlow) -> None:
        self.case, self.ledger, self.backbone, self.method = case, ledger, backbone, method
        down, self.up = paths(backbone, method.steps, method.inversion_steps)
        self.down = down[::-1]
        prompts = {"inversion": case.about["source_prompt"], "negative": method.negative}
        if case.about.get("editing_prompts"):
            prompts["target"] = case.about["editing_prompts"][0]
        self.text = {name: backbone.embed(prompt) for name, prompt in prompts.items()}
        self.given = {name: text.given for name, text in self.text.items()}
        self.limit = case.number("teacher_forced", 1e-4)

    def note(
        self, group: str, where: str, ours: Tensor, stored: str | Tensor, limit: float | None = None
    ) -> None:
        """Of a tensor, or of a name where the case has it. A limit of its own is for what runs on its own."""
        if isinstance(stored, str) and stored not in self.case:
            return
        error = relative(ours, self.case[stored] if isinstance(stored, str) else stored)
        if limit is None:
            self.ledger.note(group, FORCED, where, error, self.limit)
        else:
            self.ledger.note(group, FREE, where, error, limit)

    def exact(self, group: str, where: str, same: bool) -> None:
        self.ledger.note(group, FORCED, where, 0.0 if same else 1.0, 0.0)

    def texts(self) -> None:
        for name, text in self.text.items():
            if f"text/{name}/ids" in self.case:
                ids = self.case[f"text/{name}/ids"].flatten().tolist()
                same = list(text.ids) == ids[: text.length] and len({*ids[text.length :]}) <= 1
                self.exact("text: token ids", name, same)
        rows = [("inversion", "text/inversion", 0)]
        rows += [("negative", "text/uncond_cond", 0), ("target", "text/uncond_cond", 1)]
        for name, stored, row in rows:
            if stored in self.case:
                self.note("text: embeddings", name, self.text[name].tokens, self.case[stored][row])

    def codec(self) -> None:
        frames = self.case["input/frames_u8"].permute(0, 3, 1, 2) / 255
        self.note("encoded frames", "all", self.backbone.encode(frames), "vae/latents")
        for key, latents in (("edit", "edit/latents"), ("recon", "recon/latents_final")):
            if f"{key}/frames_u8_down" in self.case:
                theirs = self.case[f"{key}/frames_u8_down"].permute(0, 3, 1, 2).double()
                last = self.case[latents][-1] if key == "edit" else self.case[latents]
                ours = self.backbone.decode(last)[..., 2::4, 2::4].double() * 255
                # Truncated to bytes: what is beyond the next whole number counts.
                beyond = ((ours - theirs - 0.5).abs() - 0.5).clamp(min=0)
                error = float(beyond.norm() / theirs.norm())
                self.ledger.note("decoded frames, beyond rounding", FORCED, key, error, self.limit)

    def inversion(self, count: int) -> None:
        """The network is told the time of the level that the step leads to."""
        self.exact("times of the network", "inversion", list(self.up) == self.case["inv/timesteps"].tolist())
        latents, outputs = self.case["inv/latents"], {0: 0, len(self.up) - 1: 1}
        for j, t in enumerate(self.up[:count]):
            out = self.backbone.predict(latents[j][None], t, {"source": self.given["inversion"]})[0]
            if j in outputs:
                stored = self.case["inv/unet_out"][outputs[j]]
                self.note("inversion: network output", f"step {j}", out, stored)
            now = self.up[j - 1] if j else CLEAN
            made = self.backbone.noise_path.step(latents[j], out, now=now, call=t, to=t)
            self.note("inversion: latents", f"step {j}", made, latents[j + 1])

    def on_its_own(self, wanted: Wanted) -> None:
        """All of the inversion, and all of the way back from the stored noise."""
        stored, given = self.case["inv/latents"], self.given["inversion"]
        made = invert(self.backbone, stored[0], given, self.up, progress=wanted.progress)
        for j, own in enumerate(made[1:]):
            limit = self.case.number("inversion_free_running", 1e-3)
            self.note("inversion: latents", f"step {j}", own, stored[j + 1], limit)
        back = sample(self.backbone, stored[-1], given, self.up, progress=wanted.progress)
        limit = self.case.number("final_free_running", 2e-2)
        self.note("reconstruction: final latents", "last", back, "recon/latents_final", limit)

    def inverted(self) -> list[Tensor]:
        """Of the frames that are edited: those beyond the last whole chunk are left out by the authors."""
        return list(self.case["inv/latents"][:, : len(self.case["edit/init_latents"])])

    def start(self) -> None:
        times = self.case["edit/timesteps"].tolist()
        ours = list(self.method.travelled(self.down[::-1]))[::-1]
        self.exact("times of the network", "edit", ours == times)
        path, last = self.backbone.noise_path, self.up[-1]
        latents = self.inverted()
        noise = noise_between(path, latents[0], latents[-1], last)
        self.note("edit: noise of the start", "eps", noise, "edit/eps")
        begin = first_latent(path, Inversion(latents, self.up), times[0], self.method.settings().start)
        self.note("edit: start", "init_latents", begin, "edit/init_latents")
