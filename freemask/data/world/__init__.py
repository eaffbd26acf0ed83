"""The embedded world: procedural clips that know their own truth."""

from freemask.data.world.source import World as World
