"""Stored null-text inversion against ours: each time from the stored latent and text before it, and on its own."""

from collections.abc import Sequence

from torch import Tensor

from freemask.diffusion.guidance import at
from freemask.diffusion.inversions import Inversion
from freemask.diffusion.null_text import FALL, RATE, Descent, NullText, empty_text, null_text
from freemask.types import Progress
from tests.official.case import Case
from tests.official.ledger import FORCED, FREE, relative
from tests.official.tuned import Scene

Seen = list[tuple[Tensor, Tensor, Tensor]]
EMBEDDING = "null_embeddings_teacher_forced"


def options(case: Case, inner: int | None = None) -> NullText:
    """Fast cases look for no text, and do not guide the source."""
    said = case.about["null_text"] or {"inner_steps": 0}
    guidance = 1 if case.about["fast"] else float(case.about["guidance_scale"])
    return NullText(guidance, int(said["inner_steps"]) if inner is None else inner, shared=True)


def forced(scene: Scene, count: int, progress: Progress) -> None:
    """Each time from the stored latent and the stored text of the time before."""
    case, path = scene.case, scene.case.latents("inv/latents")
    begun, latents = empty_text(scene.backbone, options(case), 1), case.latents("null/latents")
    for i in range(count):
        progress("null text, time by time", i, count)
        place, aim, where, seen = scene.place(i), path[scene.steps - 1 - i], f"step {i}", []
        given = begun.plus(text=case["null/embeddings"][i - 1] if i else case["text/empty/emb"])
        found, moved = descent(scene, seen=seen).step(place, latents[i], aim, given)
        updates(scene, i, seen)
        before, ours, theirs = given.parts["text"], found.parts["text"], case["null/embeddings"][i]
        scene.judge("null text: texts", where, ours, theirs, EMBEDDING)
        scene.judge("null text: change of texts", where, ours - before, theirs - before, EMBEDDING)
        if i + 1 < scene.steps:
            scene.judge("null text: latents", where, moved, latents[i + 1])
        if f"null/prev_rec/{i:02d}" in case:
            _, moved = descent(scene, inner=0).step(place, latents[i], aim, given)
            theirs = case.latents(f"null/prev_rec/{i:02d}")[0]
            scene.judge("null text: first guess", where, moved, theirs)


def descent(scene: Scene, *, inner: int | None = None, seen: Seen | None = None) -> Descent:
    watch = None if seen is None else lambda *update: seen.append(update)
    return Descent(scene.backbone, scene.source, options(scene.case, inner), watch)


def updates(scene: Scene, i: int, seen: Seen) -> None:
    """As many as there are stored errors: those behind an early stop are not numbers."""
    case, done = scene.case, int((~scene.case["null/loss"][i].isnan()).sum())
    told = int(case["null/inner_done"][i])
    scene.exactly("null text: updates", f"step {i}", float(len(seen) != done or done != told))
    rate = abs(RATE * (1 - FALL * i) - float(case["null/lr"][i]))
    scene.ledger.note("null text: rate", FORCED, f"step {i}", rate, 1e-12)
    for j, (errors, gradient, text) in enumerate(seen[:done]):
        where = f"step {i}, update {j}"
        theirs = case["null/loss"][i, j : j + 1]
        scene.judge("null text: errors", where, errors, theirs, "null_loss_first_timesteps")
        if j == 0 and f"null/grad_first/{i:02d}" in case:
            scene.judge("null text: first gradient", where, gradient, case[f"null/grad_first/{i:02d}"])
        if i == 0 and f"null/inner00/{j:02d}" in case:
            scene.judge("null text: texts", where, text, case[f"null/inner00/{j:02d}"], EMBEDDING)


def free(scene: Scene, path: Sequence[Tensor], progress: Progress) -> None:
    """On our own inversion; shown and not judged, for Adam makes much of little."""
    case, known = scene.case, Inversion(path, scene.times)
    found = null_text(scene.backbone, known, scene.source, options(case), progress=progress)
    for i, t in enumerate(reversed(scene.times)):
        error = relative(at(found.uncond, t).parts["text"], case["null/embeddings"][i])
        scene.ledger.note("null text: texts", FREE, f"step {i}", error, None)
        error = relative(found.path.input_at(t), case.latents("null/latents")[i])
        scene.ledger.note("null text: latents", FREE, f"step {i}", error, None)
