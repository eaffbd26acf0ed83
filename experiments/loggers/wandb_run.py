"""The W&B runs of one launch: opened when they are first needed, offline where W&B cannot be had, closed together."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

SITE = "https://api.wandb.ai"
REACH, FINISH = 20, 300  # seconds: to be let in, and to send what is left
QUIET = ("metrics/*", "seconds/*", "peak/*")  # their last values say nothing; the summary holds means


class Session:
    def __init__(
        self, project: str, entity: str | None, mode: str | None, *, say: Callable[[str], None]
    ) -> None:
        self._project, self._entity, self._say = project, entity, say
        self._mode = mode
        self._runs: dict[str, Any] = {}
        self._about: dict[str, dict[str, Any]] = {}

    def run(self, channel: str, *, folder: Path, **about: Any) -> Any:
        """The open run of a channel. `about` is what `wandb.init` is told of it."""
        if channel not in self._runs:
            self._about[channel] = {"dir": str(folder), **about}
            self._runs[channel] = self._open(channel)
        return self._runs[channel]

    def __contains__(self, channel: str) -> bool:
        return channel in self._runs

    def finish(self) -> list[str]:
        """The channels that there were; their files are whole, or their data has arrived."""
        if not self._runs:
            return []
        import wandb

        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.finish()
        try:
            wandb.teardown()  # waits for the process that writes
        except SystemExit as error:
            raise RuntimeError(f"its process ended with {error.code}") from error
        return list(runs)

    def abandon(self) -> None:
        """Leaves nothing behind that would speak up when the process ends. A run that can still be finished is."""
        if not self._runs:
            return
        import wandb

        self._runs = {}
        with suppress(Exception, SystemExit):
            wandb.teardown()

    def _open(self, channel: str) -> Any:
        import wandb

        if self._mode is None:
            self._mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
            if self._mode == "offline" and "WANDB_MODE" not in os.environ:
                self._offline("there is no key", channel)
        try:
            return self._begin(channel, self._mode)
        except (wandb.Error, OSError) as error:
            if self._mode != "online":
                raise
            self._offline((str(error).splitlines() or [type(error).__name__])[0], channel)
        # The service keeps the id of a run that failed to start; a new service does not know it.
        open_now, self._runs = list(self._runs), {}
        with suppress(Exception, SystemExit):
            wandb.teardown()
        self._runs = {each: self._begin(each, "offline") for each in open_now}
        return self._begin(channel, "offline")

    def _offline(self, why: str, channel: str) -> None:
        self._mode = "offline"
        where = Path(self._about[channel]["dir"]) / "wandb"
        self._say(f"offline, since {why}; `wandb sync {where}/offline-run-*` sends it later")

    def _begin(self, channel: str, mode: str) -> Any:
        import wandb

        quiet = wandb.Settings(silent=True, console="off")
        wandb.setup(settings=quiet)
        settings = quiet.model_copy(
            update={"init_timeout": REACH, "finish_timeout": FINISH, "finish_timeout_raises": True}
        )
        run = wandb.init(
            project=self._project,
            entity=self._entity,
            mode=mode,  # pyright: ignore[reportArgumentType]
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=settings,
            **self._about[channel],
        )
        for each in QUIET:
            run.define_metric(each, summary="none")
        return run


def has_key() -> bool:
    import netrc

    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", SITE)).hostname
    try:
        return netrc.netrc().authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
