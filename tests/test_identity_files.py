"""Files that tasks and masks name count with what is in them: a run that goes on notices others."""

from dataclasses import replace

from experiments.config.identity import digest_of
from experiments.report.edit_folder import edit_identity
from freemask.types import LocalEdit
from tests.test_identity import TASK, config, hash_of


def test_the_files_of_tasks_and_of_a_mask_folder_count_with_their_content(tmp_path):
    masks, frame = tmp_path / "left", tmp_path / "first.png"
    masks.mkdir()
    (masks / "0.png").write_bytes(b"white")
    frame.write_bytes(b"a picture")
    edits = (LocalEdit({"cat": "dog"}, "shape", str(masks)), LocalEdit({"hat": "cap"}, "shape"))
    tasks = [replace(TASK, assets={"first_frame": str(frame)}), replace(TASK, edits=edits)]
    segmented = {"_target_": "freemask.masks.strategies.segmentation.Segmentation", "folder": str(masks)}
    single = config() | {"paths": {}, "runs": "x"}

    def now() -> list[str]:
        by_folder = hash_of(method={"mask": segmented})
        return [digest_of([each]) for each in tasks] + [
            by_folder,
            *(edit_identity(single, each).hash for each in tasks),
        ]

    before = now()
    assert before == now()
    (masks / "0.png").write_bytes(b"black")
    after = now()
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, False, True, False]
    frame.write_bytes(b"another picture")
    assert [one == two for one, two in zip(after, now(), strict=True)] == [False, True, True, False, True]
    (masks / "0.png").write_bytes(b"white")
    frame.write_bytes(b"a picture")
    assert now() == before
    moved = masks.rename(tmp_path / "moved")
    assert hash_of(method={"mask": segmented | {"folder": str(moved)}}) == before[2]


def test_the_prompt_of_an_edit_counts_and_not_who_said_it():
    captions = {"_target_": "freemask.data.blip.Blip", "beams": 3}
    single = config() | {"paths": {}, "captions": captions}
    other = single | {"captions": captions | {"beams": 1}}
    assert edit_identity(single, TASK).hash == edit_identity(other, TASK).hash
    said = replace(TASK, source=f"{TASK.source}, seen from afar")
    assert edit_identity(single, said).hash != edit_identity(single, TASK).hash
