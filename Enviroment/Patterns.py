"""`Patterns`: textures that any geom may take on while it is drawn, whatever its model has."""

import mujoco

from Enviroment.Views import PATTERN_SIZES, PATTERNS, View

_LEVELS = 20  # of contrast, from 0 below 1
_LOOKS = {  # MuJoCo's generated textures, by name
    "checker": 'builtin="checker" rgb1="1 1 1" rgb2="{0} {0} {0}"',
    "gradient": 'builtin="gradient" rgb1="1 1 1" rgb2="{0} {0} {0}"',
    "grid": 'builtin="flat" rgb1="1 1 1" rgb2="1 1 1" mark="edge" markrgb="{0} {0} {0}"',
    "dots": 'builtin="flat" rgb1="1 1 1" rgb2="1 1 1" mark="random" random="0.2" markrgb="{0} {0} {0}"',
}
# Flat textures are for geoms with texture coordinates, planes among them. Cubes wrap all others, in one size.
_SIZES = {"2d": PATTERN_SIZES, "cube": (1,)}
_ROLES, _COLOUR = (getattr(mujoco.mjtTextureRole, f"mj{name}").value for name in ("NTEXROLE", "TEXROLE_RGB"))


def _assets() -> str:
    """Return textures of every type, look and level of contrast, and materials that have them in every size."""
    names = [(kind, look, level) for kind in _SIZES for look in PATTERNS for level in range(_LEVELS)]
    textures = "".join(
        f'<texture name="{kind}{look}{level}" type="{kind}" width="32" height="32" '
        f"{_LOOKS[look].format(1 - level / _LEVELS)}/>"
        for kind, look, level in names
    )
    return textures + "".join(
        f'<material name="{kind}{look}{level}/{size}" texture="{kind}{look}{level}" texrepeat="{size} {size}" '
        f'texuniform="{"true" if kind == "2d" else "false"}"/>'
        for kind, look, level in names
        for size in _SIZES[kind]
    )


class Patterns:
    """Textures in a context's OpenGL, uploaded once.

    MuJoCo uploads a model's textures when a context is made, and a model cannot get more of them later. But its pictures are
    drawn by the context's tables of textures and materials, which have room for those of a context of our own.
    """

    def __init__(self, context: mujoco.MjrContext, materials: int):
        small = '<global offwidth="1" offheight="1"/><quality offsamples="0" shadowsize="0"/>'
        model = mujoco.MjModel.from_xml_string(f"<mujoco><visual>{small}</visual><asset>{_assets()}</asset></mujoco>")
        self._context = own = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        first, end = context.ntexture, context.ntexture + model.ntex
        for table in ("texture", "textureType"):
            getattr(context, table)[first:end] = getattr(own, table)[: model.ntex]
        slots, new = slice(materials, materials + model.nmat), slice(model.nmat)
        for table in ("mat_texuniform", "mat_texrepeat", "mat_texid"):
            width = _ROLES if table == "mat_texid" else 2 if table == "mat_texrepeat" else 1
            getattr(context, table).reshape(-1, width)[slots] = getattr(own, table).reshape(-1, width)[new]
        textures = context.mat_texid.reshape(-1, _ROLES)[:, _COLOUR]
        self._textured = textures[:materials] >= 0
        textures[slots] += first
        self._first = materials

    def lay(self, scene: mujoco.MjvScene, view: View, geoms: int) -> None:
        """Give each of a model's geoms in a scene its pattern of `view`, unless it has a texture; `geoms` is their number."""
        looks, contrasts, sizes = view.patterns(geoms)
        for geom in scene.geoms[: scene.ngeom]:
            n = geom.objid
            if geom.objtype != mujoco.mjtObj.mjOBJ_GEOM or (geom.matid >= 0 and self._textured[geom.matid]):
                continue
            number = int(looks[n]) * _LEVELS + round(float(contrasts[n]) * _LEVELS)
            if geom.texcoord or geom.type == mujoco.mjtGeom.mjGEOM_PLANE:
                geom.matid = self._first + number * len(PATTERN_SIZES) + int(sizes[n])
            else:
                geom.matid = self._first + len(PATTERNS) * _LEVELS * len(PATTERN_SIZES) + number

    def close(self) -> None:
        """Free the textures."""
        self._context.free()
