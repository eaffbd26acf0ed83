"""The library's front door: what `import freemask` offers by name, with the defaults of the command."""

from experiments.front.edits import edit as edit
from experiments.front.load import load_clip as load_clip
from experiments.front.load import load_model as load_model
from experiments.front.looking import Masks as Masks
from experiments.front.looking import masks as masks
from experiments.front.result import Result as Result
