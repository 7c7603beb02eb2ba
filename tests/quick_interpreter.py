"""Triton's interpreter without most of what a call costs in it.

It patches triton.language anew in every call of a function within a kernel, which takes several
times as long as what the function does. These patches are never undone, and the launch of a kernel
patches what our modules use, so once for every module is enough.
"""

from __future__ import annotations

from typing import Any


def install() -> None:
    """Have functions within kernels patch the language once a module."""
    from triton.runtime import interpreter

    patched: set[str] = set()

    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        module = self.fn.__module__
        if module not in patched:
            interpreter._patch_lang(self.fn)
            patched.add(module)
        return self.rewrite()(*arguments, **keywords)

    interpreter.InterpretedFunction.__call__ = call
