"""Cases of networks with ControlNets: ControlVideo, VideoGrain, and TokenFlow's inversion with edges."""

from collections.abc import Sequence
from functools import cached_property

from einops import rearrange
from torch import Tensor

from freemask.diffusion.loops import invert, sample
from freemask.diffusion.noise_paths import CLEAN
from freemask.types import Clip, Given, Time
from tests.official.case import Case
from tests.official.control_run import Run
from tests.official.controlvideo import ControlVideo
from tests.official.families import Wanted
from tests.official.ledger import FORCED, FREE, Ledger, relative
from tests.official.videograin import VideoGrain


def compare(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    if "ControlVideo" in str(case.about["official_repo"]):
        ControlVideo(case, ledger, wanted).run()
    else:
        VideoGrain(case, ledger, wanted).run()


class TokenFlow(Run):
    """Frame by frame, with the edges of each frame. Latents are stored as ours lie: f c h w."""

    look = ("model.attention=frame", "model.shared_norm=false", "model.control_images=edges")

    @cached_property
    def images(self) -> Tensor:
        """As the product makes them of the frames."""
        frames = rearrange(self.case["input/frames_u8"], "f h w c -> f c h w").float() / 255
        ours = self.backbone.seen(Clip("clip", frames))["control"]
        theirs = self.case["control/canny"].float().expand(-1, 3, -1, -1)
        self.ledger.note("edges", FORCED, "control/canny", float((ours != theirs).float().mean()), 0.0)
        return ours

    def run(self) -> None:
        case, about = self.case, self.case.about
        times = self.path.times(about["num_inversion_steps"])
        same = times == case["inv/timesteps"].tolist()
        self.ledger.note("times of the network", FORCED, "inversion", 0.0 if same else 1.0, 0.0)
        text = self.backbone.embed(about["source_prompt"])
        self.note("text: embeddings", "text/inversion", text.tokens[None], case["text/inversion"])
        frames = rearrange(case["input/frames_u8"], "f h w c -> f c h w").float() / 255
        self.note("autoencoder: latents", "vae/latents", self.backbone.encode(frames), case["vae/latents"])
        given = text.given.plus(control=self.images)
        latents, outputs = (
            case["inv/latents"],
            dict(zip((0, len(times) - 1), case["inv/unet_out"], strict=True)),
        )
        for j in self.steps(len(times)):
            self.wanted.progress("inversion, step by step", j, len(times))
            with self.residuals() as found:
                out = self.backbone.predict(latents[j][None], times[j], {"source": given})[0]
            if j == 0:
                self.first(found)
            if j in outputs:
                self.note("inversion: network output", f"step {j}", out, outputs[j])
            now = [CLEAN, *times][j]
            made = self.path.step(latents[j], out, now=now, call=times[j], to=times[j])
            self.note("inversion: latents", f"step {j}", made, latents[j + 1])
        if self.wanted.free and self.wanted.steps is None:
            self.alone(given, times)

    def first(self, found: Sequence[Tensor]) -> None:
        for name in self.case.names("control/residual_first_step/"):
            which = name.rpartition("/")[2]
            middle = which == "mid"
            maps = found[-1] if middle else found[int(which.removeprefix("down"))][:, ::2, ::2, ::2]
            self.note("inversion: ControlNet", name, maps, self.case[name])

    def alone(self, given: Given, times: Sequence[Time]) -> None:
        latents = self.case["inv/latents"]
        free = invert(self.backbone, latents[0], given, times, progress=self.wanted.progress)
        limit = self.case.number("inversion_free_running", 1e-3)
        for j, (ours, theirs) in enumerate(zip(free[1:], latents[1:], strict=True)):
            self.ledger.note("inversion: latents", FREE, f"step {j}", relative(ours, theirs), limit)
        back = sample(self.backbone, free[-1], given, times, progress=self.wanted.progress)
        error = relative(back, self.case["recon/latents_final"])
        limit = self.case.number("final_free_running", 2e-2)
        self.ledger.note("reconstruction: latents", FREE, "last", error, limit)


def tokenflow_inversion(case: Case, ledger: Ledger, wanted: Wanted) -> None:
    """Of TokenFlow's cases with a ControlNet (`controlnet_dir`), all there is: the inversion and the way back."""
    TokenFlow(case, ledger, wanted).run()
