"""A call tree to folded lines, `workload;outermost;...;leaf weight`, that flame graph tools of the field read.

The root "all" is left out. Kernel frames end in `_[k]`. A `;` or a line break inside a name would make another frame
or line of it, so it becomes `:` or a space; names that are equal after that share a line.
"""

from __future__ import annotations

from analysis.calltree import CallTree, self_samples

_KERNEL_SUFFIX = "_[k]"


def folded_lines(tree: CallTree, count_samples: bool = False) -> list[str]:
    """Give one line a distinct call path, sorted; weights are in `tree.unit`, or samples with `count_samples`."""
    weights = self_samples(tree) if count_samples else tree.self_value
    labels = [_label(name, kind) for name, kind in zip(tree.names, tree.kinds, strict=True)]
    sums: dict[str, int] = {}
    path: list[str] = []
    for depth, name, weight in zip(tree.depth.tolist(), tree.name.tolist(), weights.tolist(), strict=True):
        if depth == 0:
            continue
        del path[depth - 1 :]
        path.append(labels[name])
        if weight:
            line = ";".join(path)
            sums[line] = sums.get(line, 0) + weight
    return [f"{line} {weight}" for line, weight in sorted(sums.items())]


def _label(name: str, kind: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in name.replace(";", ":"))
    return plain + _KERNEL_SUFFIX if kind == "kernel" else plain
