"""Keys whose values travel as plain text on a command line: whatever characters they hold, no quotes are needed."""

PATHS = (
    *("paths.runs", "paths.data", "model.path", "model.revision", "tuning.path", "flow.path"),
    *("first_frame.path", "interpolation.weights", "captions.weights", "data.captions.weights"),
    *("data.root", "data.tasks", "data.manifest", "data.regions", "data.clip"),
)
EDIT = ("data.edit.source", "data.edit.target")
RUN = ("name", *EDIT, *PATHS)  # of `freemask run`
