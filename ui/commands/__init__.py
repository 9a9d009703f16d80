"""One command a file; `ui.cli` lists them and loads each only when it is called."""
