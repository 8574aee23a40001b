"""The pure part of openseer: the manifest, the words of the project and its decisions; no clock, no I/O, no chance."""
