"""The comparison with stored numbers of FlowEdit and Wan-Edit: passes on the authors' cases, fails where it should."""

import json

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline
from safetensors.torch import save_file

from freemask.backbones import tiny_wan
from tests.official import compare as command
from tests.official.case import Case


@pytest.fixture(scope="module")
def parity(shared):
    return shared / "parity"


@pytest.mark.parametrize("name", ["flow_flowedit", "flow_wanedit"])
def test_the_authors_cases(parity, name, capsys):
    assert command.main([str(parity / "golden" / f"{name}.json")]) == 0
    said = capsys.readouterr().out
    assert "network calls" in said and "latents of the clip" in said and "frames, beyond rounding" in said
    assert "edit: latents" in said and "free-running" in said
    assert ("edit: velocities" in said) == (name == "flow_wanedit")


@pytest.mark.parametrize(
    ("name", "changes", "groups"),
    [
        ("flow_flowedit", {"target_guidance": 13.4}, {"edit: latents"}),
        (
            "flow_flowedit",
            {"target_prompt": "a silver car"},
            {"text: token ids", "network calls", "edit: latents"},
        ),
        ("flow_wanedit", {"shift": 3.0}, {"times of the network", "network calls", "edit: velocities"}),
        ("flow_wanedit", {"source_guidance": 6.0}, {"edit: velocities", "edit: latents"}),
    ],
)
def test_a_case_that_says_something_else_fails(parity, name, changes, groups):
    case = Case.read(parity / "golden" / f"{name}.json")
    told = Case(case.path, {**case.about, **changes}, case.tensors)
    ledger = command.compare(told, steps=1)
    failed = {group for (group, _), worst in ledger.found.items() if worst.failed}
    assert groups <= failed and "latents of the clip" not in failed


ABOUT = {
    "method": "FlowEdit",
    "official_repo": "fallenshock/FlowEdit",
    "model_dir": "models/tiny",
    "clip": "nowhere",
    "frames": list(range(5)),
    "source_prompt": "a red car on grass",
    "target_prompt": "a blue boat on grass",
    "negative_prompt": "the grass",
    "steps": 6,
    "n_max": 4,
    "n_min": 2,
    "n_avg": 3,
    "source_guidance": 1.5,
    "target_guidance": 4.0,
    "scheduler": "FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=2.0)",
}


def written_out(made, about):
    """FlowEdit with several draws and a last part that is sampled under the target alone, on the library's network."""
    rng = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(4, 2, 4, 6, generator=rng)  # noqa: E731 -- c f h w

    def embeds(prompt):
        read = made.tokenizer(prompt, padding="max_length", max_length=32, return_tensors="pt")
        hidden = made.text_encoder(read["input_ids"], read["attention_mask"]).last_hidden_state
        return hidden * read["attention_mask"][..., None]

    texts = {name: embeds(about[f"{name}_prompt"]) for name in ("source", "target", "negative")}
    path = FlowMatchEulerDiscreteScheduler(shift=2.0)
    path.set_timesteps(about["steps"])

    def velocity(which, x, t):
        plain, wanted = (
            made.transformer(x[None], t[None], texts[name]).sample[0] for name in ("negative", which)
        )
        return plain + about[f"{which}_guidance"] * (wanted - plain)

    x, n = draw(), about["steps"]
    found = {"src/latents": x, "timesteps": path.timesteps, "sigmas": path.sigmas}
    z, kept, first = x, [], n - about["n_max"]
    for i, t in enumerate(path.timesteps):
        kept.append(z)
        sigma, fall = path.sigmas[i], path.sigmas[i + 1] - path.sigmas[i]
        noisy = []
        for k in range(
            0 if i < first else about["n_avg"] if i < n - about["n_min"] else int(i == n - about["n_min"])
        ):
            found[f"edit/noise/{i:02d}/{k}"] = draw()
            noisy.append((1 - sigma) * x + sigma * found[f"edit/noise/{i:02d}/{k}"])
        if first <= i < n - about["n_min"]:
            pairs = [velocity("target", z + s - x, t) - velocity("source", s, t) for s in noisy]
            z = z + fall * sum(pairs) / len(pairs)
        elif i >= first:
            z = z + noisy[0] - x if noisy else z
            z = z + fall * velocity("target", z, t)
    return {**found, "edit/latents": torch.stack([*kept, z]), "edit/final": z}


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"target_guidance": 3.9}, 1), ({"n_min": 1}, 2)])
def test_a_case_with_several_draws_and_a_last_part(tmp_path, changes, code, capsys):
    made = tiny_wan.parts(0, torch.float32, 32, (1, 2, 2))
    path = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    pipeline = WanPipeline(made.tokenizer, made.text_encoder, made.vae, path, made.transformer)
    pipeline.save_pretrained(tmp_path / "models" / "tiny")
    with torch.no_grad():
        tensors = {name: value.contiguous() for name, value in written_out(made, ABOUT).items()}
    place = tmp_path / "golden" / "case.json"
    place.parent.mkdir()
    save_file(tensors, place.with_suffix(".safetensors"))
    shapes = {name: {"shape": list(value.shape)} for name, value in tensors.items()}
    place.write_text(json.dumps({**ABOUT, **changes, "tensors": shapes}))
    assert command.main([str(place)]) == code
    said = "too few draws for a step" if code == 2 else "the clip nowhere is not here"
    assert said in capsys.readouterr().out
