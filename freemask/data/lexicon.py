"""Words that tell the kinds of edits apart: small lists, where word order alone does not say it."""

# fmt: off
COLOURS = frozenset({
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown", "grey", "gray", "beige",
    "violet", "turquoise", "cyan", "magenta", "golden", "silver", "crimson", "scarlet", "teal", "maroon", "ivory",
})
MATERIALS = frozenset({
    "wood", "wooden", "stone", "marble", "metal", "metallic", "gold", "bronze", "copper", "iron", "steel", "glass",
    "crystal", "ice", "paper", "cardboard", "plastic", "rubber", "leather", "wool", "woolen", "cotton",
    "silk", "clay", "porcelain", "lego", "origami", "chrome", "concrete", "brick", "velvet", "fur", "diamond", "jade",
})
QUALITIES = frozenset({
    "big", "small", "large", "little", "tiny", "huge", "old", "young", "new", "rusty", "shiny", "dirty", "clean",
    "wet", "dry", "bright", "dark", "spotted", "striped", "furry", "fluffy", "hairy", "fat", "thin", "tall", "short",
    "beautiful", "ugly", "broken", "open", "closed", "hot", "cold", "long",
})
ADJECTIVES = COLOURS | MATERIALS | QUALITIES
# Places, times and weather: what is around the object.
GROUNDS = frozenset({
    "road", "street", "highway", "path", "track", "tracks", "roundabout", "grass", "lawn", "meadow", "field", "fields",
    "garden", "park", "yard", "forest", "woods", "jungle", "trees", "desert", "sand", "beach", "shore", "coast",
    "sea", "ocean", "water", "lake", "pond", "river", "waterfall", "snow", "ice", "mud", "ground", "floor", "rock",
    "rocks", "stones", "bricks", "gravel", "asphalt", "mountain", "mountains", "hill", "hills", "valley", "cliff",
    "sky", "clouds", "space", "moon", "mars", "city", "town", "village", "countryside", "zoo", "enclosure", "stage",
    "room", "kitchen", "bedroom", "office", "studio", "hall", "background", "lava", "savanna", "savannah", "swamp",
    "island", "bridge", "station", "square", "stadium", "harbor", "harbour", "canyon", "cave", "pool", "aquarium",
    "night", "day", "noon", "dawn", "dusk", "sunset", "sunrise", "morning", "evening", "winter", "summer", "autumn",
    "spring", "rain", "storm", "fog", "mist", "sunshine", "sunlight", "moonlight", "fire", "snowstorm", "underwater",
})
# Ways to make a picture, and what is said of a picture as a whole.
STYLES = frozenset({
    "photo", "photograph", "picture", "image", "painting", "drawing", "sketch", "art", "artwork", "style", "styled",
    "cartoon", "comic", "anime", "manga", "illustration", "render", "rendering", "animation", "watercolor",
    "watercolour", "oil", "crayon", "charcoal", "pencil", "ink", "print", "graffiti", "mosaic", "poster", "engraving",
    "ukiyo-e", "pixar", "disney", "ghibli", "cyberpunk", "steampunk", "impressionist", "impressionism", "cubism",
    "cubist", "surreal", "minecraft", "claymation", "quality", "hd", "4k", "8k", "detailed", "cinematic",
    "photorealistic", "realistic", "monochrome", "black-and-white", "vintage", "retro", "sepia", "neon", "pastel",
    "van", "gogh", "monet", "picasso", "hokusai", "fresco", "tapestry", "lowpoly", "low-poly", "voxel", "pixel",
})
# "a statue of a bear": another material of the same thing.
LIKENESSES = frozenset({"statue", "sculpture", "figurine", "figure", "toy", "model", "skeleton", "balloon"})
PLACES = frozenset({
    "in", "on", "at", "under", "above", "over", "through", "across", "along", "near", "beside", "behind", "before",
    "into", "onto", "from", "around", "past", "inside", "outside", "down", "up", "between", "against", "during", "by",
})
IRREGULAR_PLURALS = frozenset({"people", "men", "women", "children", "sheep", "fish", "geese", "mice", "cattle"})
# fmt: on
