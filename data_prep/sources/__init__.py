"""Public data sources: each module turns one of them, as it is published, into samples. `SOURCES` names them."""

from importlib import import_module

from data_prep.sources.source import BuildConfig, Source

# name -> module, options, class; imported when asked for
SOURCES = {
    "vstar": ("data_prep.sources.vstar", "VStarConfig", "VStarSource"),
    "refchartqa": ("data_prep.sources.refchartqa", "RefChartQAConfig", "RefChartQA"),
    "mazes": ("data_prep.sources.mazes", "MazesConfig", "MazeSource"),
    "lakes": ("data_prep.sources.lakes", "LakesConfig", "LakeSource"),
    "jigsaws": ("data_prep.sources.jigsaws", "JigsawsConfig", "Jigsaws"),
    "dl3dv": ("data_prep.sources.dl3dv", "DL3DVConfig", "DL3DV"),
    "released": ("data_prep.sources.released", "ReleasedConfig", "Released"),
}


def find_source(name: str) -> tuple[type[BuildConfig], type[Source], str]:
    """The options, the class and the description of a source."""
    module_name, config, source = SOURCES[name]
    module = import_module(module_name)
    return getattr(module, config), getattr(module, source), module.__doc__ or ""
