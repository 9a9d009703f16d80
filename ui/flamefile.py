"""A flame graph to one HTML file that works from disk, offline, for as long as there are browsers.

The viewer's own modules are written into the page, each as a function that returns its exports, in the order of their
imports. The file's policy admits exactly this script and this style by their hashes and no connection, so a hostile
name in it is text and stays text.

Refuses modules beyond the form ours have: `import { a, b } from "./x.js";`, and `export` before a declaration.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

from analysis.flame import Flame
from ui.web.wire import Document, flame_document

STATIC = Path(__file__).parent / "web" / "static"
ENTRY = "filepage.js"
# A file is read alone, so it holds more than a page that can ask again; about 6 MB.
FILE_MAX_NODES = 100_000

_IMPORT = re.compile(r'^import \{((?:(?!\bas\b)[\w\s,])+)\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_LEFT_OVER = re.compile(r"^(?:import|export)\b", re.MULTILINE)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header class="file-head"><h1><bdi>{title}</bdi></h1><p><bdi>{subtitle}</bdi></p>
<button type="button" id="theme" title="Dark or light (t)" aria-label="Dark or light">&#9680;</button></header>
<main><section id="flame" class="flame" aria-label="Where the CPU time went"></section>
<div id="functions" class="list-frame"></div></main>
<footer>{trust}</footer>
<script type="application/json" id="flame-data">{data}</script>
<script type="module">{script}</script>
</body>
</html>
"""


def render_flame_html(flame: Flame, title: str, subtitle: str) -> str:
    """Return the page; `title` and `subtitle` may be foreign text."""
    document = flame_document(flame, FILE_MAX_NODES)
    script = bundle(STATIC / "js", ENTRY)
    style = "\n" + _read(STATIC / "css" / "flame.css") + _read(STATIC / "css" / "file.css")
    policy = (
        f"default-src 'none'; script-src '{_source_hash(script)}'; style-src '{_source_hash(style)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    return _PAGE.format(
        policy=policy,
        title=html.escape(_visible(title)),
        subtitle=html.escape(_visible(subtitle)),
        style=style,
        trust=html.escape(_trust(document)),
        data=_script_safe_json(document),
        script=script,
    )


def bundle(folder: Path, entry: str) -> str:
    """Return one script that does what the module `entry` of `folder` and all its imports do."""
    parts: list[str] = []
    _add_module(folder, entry, parts, done=set(), open_names=())
    return "\n" + "".join(parts)


def _add_module(folder: Path, name: str, parts: list[str], done: set[str], open_names: tuple[str, ...]) -> None:
    """Append module `name` after the modules that it imports."""
    if name in open_names:
        raise ValueError(f"modules import each other in a circle: {' -> '.join((*open_names, name))}")
    if name in done:
        return
    source = _read(folder / name)
    for imported in _IMPORT.finditer(source):
        _add_module(folder, imported[2], parts, done, (*open_names, name))
    exports = ", ".join(match[1] for match in _EXPORT.finditer(source))
    body = _IMPORT.sub(lambda match: f"const {{{match[1]}}} = {_variable(match[2])};\n", source)
    body = _EXPORT.sub("", body)
    if _LEFT_OVER.search(body) or "</script" in body.lower() or "<!--" in body:
        raise ValueError(f"module {name} cannot be written into a page; see the forms in the docstring")
    parts.append(f"const {_variable(name)} = (() => {{\n{body}return {{ {exports} }};\n}})();\n")
    done.add(name)


def _variable(module: str) -> str:
    return "module_" + module.removesuffix(".js").replace("-", "_")


def _script_safe_json(document: Document) -> str:
    """Return JSON that neither ends its script element nor starts another: no "<", nothing beyond ASCII."""
    text = json.dumps(document, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _visible(text: str) -> str:
    """Replace what cannot be seen, such as overrides of the writing direction, by its code."""
    return "".join(character if character.isprintable() else f"<U+{ord(character):04X}>" for character in text)


def _trust(document: Document) -> str:
    lost = [f"{loss['count']} {loss['counter']} ({loss['meaning']})" for loss in document["losses"]]
    windows = document["windows"]
    parts = [f"{windows} window" if windows == 1 else f"{windows} windows", *(lost or ["nothing lost"])]
    if document["bad_segments"]:
        parts.append(f"{len(document['bad_segments'])} damaged segments left out")
    sent = len(document["tree"]["depth"])
    if sent < document["nodes"]:
        parts.append(f"{sent} of {document['nodes']} frames, the smallest summed as (other)")
    return " · ".join(parts)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
