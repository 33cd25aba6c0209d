"""One file per `lesson` command: the file, its function and the command have the same name.

`PANEL` says where the command stands in `lesson --help`, `EXAMPLE` is shown at the end of its own help. These
modules are imported for every `lesson --help`, so they import torch, jupyter and other heavy libraries inside
the command, never at the top.
"""

STUDENTS = "For students"
ENGINE = "The engine"
INSTRUCTORS = "For instructors"
