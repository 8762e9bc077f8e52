"""`python -m etchr.bench sft | rl | evr | data`: what things cost on this machine."""

import sys
from collections.abc import Sequence
from importlib import import_module

BENCHES = {  # name -> the module whose `main(argv)` it is, and what it measures
    "sft": ("etchr.bench.sft", "a training step of Stage I: speed, memory, utilisation"),
    "rl": ("etchr.bench.rl", "an iteration of Stage II, against a loop of single edits"),
    "evr": ("evaluation.bench", "how well edits and model calls overlap in an evaluation"),
    "data": ("data_prep.bench.__main__", "rows a second, memory and disk of every data source"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of them; without a name, or with --help, say what there is."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in BENCHES:
        import_module(BENCHES[words[0]][0]).main(words[1:])
        return
    lines = ["usage: python -m etchr.bench NAME [OPTION=VALUE ...]; NAME --help lists the options", ""]
    lines += [f"  {name:5} {what}" for name, (_, what) in BENCHES.items()]
    if words not in ([], ["--help"], ["-h"]):
        raise SystemExit("\n".join([f"no bench {words[0]!r}", *lines]))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
