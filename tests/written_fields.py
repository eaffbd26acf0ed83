"""Losses of fields written out in plain NumPy and double precision, point by point: the slow versions of
`freemask.fields`."""

import numpy as np


def mlp(weights, name, layers, x, skips=(), straight=False):
    """One point through a network."""
    made = np.asarray(x, dtype=float)
    start = made.copy()
    for at in range(layers):
        if at in skips:
            made = np.concatenate([made, start])
        made = weights[f"{name}.{at}.weight"] @ made + weights[f"{name}.{at}.bias"]
        if at < layers - 1 - straight:
            made = np.maximum(made, 0)
    return made


def waves(x, bands, unit=1.0, own=False):
    parts = list(x) if own else []
    for band in range(bands):
        parts += [np.sin(each * unit * 2**band) for each in x]
        parts += [np.cos(each * unit * 2**band) for each in x]
    return np.array(parts)


class Atlas:
    """`depths` of both mappings, opacity and pictures; `bands` of opacity and pictures."""

    def __init__(self, weights, size, depths, bands):
        self.weights, self.size, self.depths, self.bands = weights, size, depths, bands
        self.longer = max(size[1:])

    def place(self, p):
        x, y, t = p
        return np.array([x / (self.longer / 2) - 1, y / (self.longer / 2) - 1, t / (self.size[0] / 2) - 1])

    def uv(self, layer, p):
        depth = self.depths[0 if layer == "foreground" else 1]
        return np.tanh(mlp(self.weights, layer, depth, self.place(p)))

    def opacity(self, p):
        made = mlp(self.weights, "opacity", self.depths[2], waves(self.place(p), self.bands[0], np.pi))
        return 0.99 * (np.tanh(made[0]) + 1) / 2 + 0.001

    def colour(self, layer, uv):
        at = uv / 2 + (0.5 if layer == "foreground" else -0.5)
        depth = self.depths[3]
        skips = (depth // 2, depth - 1)
        made = mlp(self.weights, "picture", depth, waves(at, self.bands[1], np.pi), skips)
        return (np.tanh(made) + 1) / 2

    def shown(self, p):
        a = self.opacity(p)
        front, behind = (self.colour(layer, self.uv(layer, p)) for layer in ("foreground", "background"))
        return a * front + (1 - a) * behind

    def stiff(self, layer, p, step):
        """||J^T J|| + ||(J^T J)^-1||, of pixels of the clip."""
        x, y, t = p
        scale = self.longer / 2 / 0.8 / step
        here = self.uv(layer, p)
        jacobian = np.stack(
            [here - self.uv(layer, (x - step, y, t)), here - self.uv(layer, (x, y - step, t))], axis=1
        )
        both = (jacobian * scale).T @ (jacobian * scale)
        return np.linalg.norm(both) + np.linalg.norm(np.linalg.inv(both + 1e-3 * np.eye(2)))


def atlas_losses(atlas, points, known, far):
    """`points`: (x, y, t). `far`: pixels over which mappings are held rigid as well; 0: none."""
    _, height, width = atlas.size
    frames, flow, trusted, marked = known
    n = len(points)
    sums = dict.fromkeys(("colour", "changes", "hidden", "flow opacity", "marked"), 0.0)
    for layer in ("foreground", "background"):
        sums |= {f"rigid {layer}": 0.0, f"flow {layer}": 0.0, f"far {layer}": 0.0}
    moving = 0
    for x, y, t in points:
        a, made = atlas.opacity((x, y, t)), atlas.shown((x, y, t))
        true = frames[t, :, y, x]
        sums["colour"] += 5000 * ((made - true) ** 2).sum() / n
        for dx, dy in ((1, 0), (0, 1)):
            if x + dx < width and y + dy < height:
                change = atlas.shown((x + dx, y + dy, t)) - made
                sums["changes"] += 1000 * ((change - (frames[t, :, y + dy, x + dx] - true)) ** 2).sum() / n
        front = atlas.colour("foreground", atlas.uv("foreground", (x, y, t)))
        sums["hidden"] += 1000 * ((front * (1 - a)) ** 2).sum() / n
        m = marked[t, y, x]
        sums["marked"] += 2000 * -(m * np.log(a) + (1 - m) * np.log(1 - a)) / n
        for layer, weight in (("foreground", 5), ("background", 50)):
            sums[f"rigid {layer}"] += atlas.stiff(layer, (x, y, t), 1) / n
            if far:
                sums[f"far {layer}"] += weight * atlas.stiff(layer, (x, y, t), far) / n
        if trusted[t, y, x]:
            moving += 1
            u, v = flow[t, :, y, x]
            there = (x + u, y + v, t + 1)
            b = atlas.opacity(there)
            share = {"foreground": (a + b) / 2, "background": 1 - (a + b) / 2}
            for layer in share:
                apart = np.linalg.norm(atlas.uv(layer, (x, y, t)) - atlas.uv(layer, there))
                sums[f"flow {layer}"] += 5 * apart * atlas.longer / 2 / 0.8 * share[layer]
            sums["flow opacity"] += 49 * abs(a - b)
    for name in ("flow foreground", "flow background", "flow opacity"):
        sums[name] /= max(1, moving)
    return sums if far else {name: each for name, each in sums.items() if not name.startswith("far")}


class Deformed:
    """`depths` of deformation and picture."""

    def __init__(self, weights, size, depths, bands):
        self.weights, self.size, self.depths, self.bands = weights, size, depths, bands

    def where(self, at, frame, shares):
        seen = waves(at, self.bands, own=True)
        for band, share in enumerate(shares):
            seen[2 + 4 * band : 6 + 4 * band] *= share
        seen = np.concatenate([self.weights["codes"][frame], seen])
        depth = self.depths[0]
        return np.asarray(at) + mlp(self.weights, "deformation", depth + 1, seen, (min(4, depth - 1),))

    def colour(self, at):
        depth = self.depths[1]
        made = mlp(
            self.weights, "picture", depth + 2, waves(at, self.bands, own=True), (min(4, depth - 1),), True
        )
        return 1 / (1 + np.exp(-made))


def canonical_losses(fields, frame, known, shares, reference):
    """Of a whole frame. `reference`: the frame that the picture is to be like; None: none."""
    _, height, width = fields.size
    frames, flow, trusted, marked = known
    made, still, moved = np.zeros((3, height, width)), np.zeros((3, height, width)), {}
    for y in range(height):
        for x in range(width):
            at = np.array([x / width, y / height])
            moved[y, x] = fields.where(at, frame, shares)
            made[:, y, x], still[:, y, x] = fields.colour(moved[y, x]), fields.colour(at)
    true, inside = frames[frame], marked[frame] > 0.5
    sums = {"colour": ((made - true) ** 2)[:, inside].mean()}
    sums["edges"] = 0.1 * np.abs(edges(made) - edges(true))[:, inside].mean()
    sums["around"] = 0.01 * ((made - true) ** 2)[:, ~inside].mean()
    apart = []
    for y in range(height):
        for x in range(width):
            if inside[y, x] and trusted[frame, y, x]:
                u, v = flow[frame, :, y, x]
                there = fields.where(np.array([(x + u) / width, (y + v) / height]), frame + 1, shares)
                apart += list(np.abs(there - moved[y, x]))
    if apart:
        sums["flow"] = np.mean(apart)
    if reference is not None:
        sums["reference"] = ((still - frames[reference]) ** 2).mean()
    if reference == frame:
        sums["still"] = np.mean([abs(where - (x / width, y / height)) for (y, x), where in moved.items()])
    return sums


def edges(picture):
    """Sobel's derivatives of the grey picture, which goes on as it ends."""
    grey = np.pad(np.tensordot([0.299, 0.587, 0.114], picture, 1), 1, mode="edge")
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    height, width = picture.shape[1:]
    found = np.zeros((2, height, width))
    for y in range(height):
        for x in range(width):
            window = grey[y : y + 3, x : x + 3]
            found[:, y, x] = (window * kernel).sum(), (window * kernel.T).sum()
    return found
