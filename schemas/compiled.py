"""The one door to numba: plain loops, compiled to machine code at their first call and kept in a cache folder.

A kernel is a Python function with a signature:

    @compiled("int64(const uint8[::1], int64[::1])")
    def count(data: Octets, found: Ints) -> int: ...

``const`` before an array type admits read-only arrays (what `numpy.frombuffer` gives) beside writable ones. Declaring a kernel
neither imports numba nor compiles; the first call does both, or finds the machine code in the cache: the first writable one of
`NUMBA_CACHE_DIR`, ``millrace/kernels`` in the user's cache folder, and one in the system's temporary folder. A kernel's cache is
stale when its own file changes, when a kernel does that it calls, itself or by others, or when a number does that one of them takes
from another module by name. With ``NUMBA_DISABLE_JIT=1`` kernels run as Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache, cached_property, update_wrapper
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_declared: list[Compiled[Any, Any]] = []
_compiling = threading.RLock()  # numba's settings and its compiler are shared by all threads


class Compiled(Generic[P, R]):
    """A kernel: called like the function it was made of, and usable inside other kernels."""

    def __init__(self, function: Callable[P, R], signatures: tuple[str, ...], makes_arrays: bool = True) -> None:
        update_wrapper(self, function)
        self.function = cast("FunctionType", function)
        self.signatures = tuple(_spell_out(signature) for signature in signatures)
        self.makes_arrays = makes_arrays
        self._ready: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        ready = self._ready
        if ready is None:
            ready = self.compile()
        return ready(*args, **kwargs)

    def compile(self) -> Callable[P, R]:
        """What calls go to: the machine code, from the cache or made now, or the plain function if numba is switched off."""
        with _compiling:
            if self._ready is None:
                self._ready = cast("Callable[P, R]", self.function) if _switched_off() else self._dispatcher
            return self._ready

    @property
    def is_cold(self) -> bool:
        """Whether the first call will have to compile."""
        return self._ready is None and not _switched_off() and not any(self._cache_folder.rglob("*.nbc"))

    @property
    def _numba_type_(self) -> Any:
        # numba asks a value of a class it does not know for this attribute: that is how kernels call each other.
        import numba

        return numba.types.Dispatcher(self._dispatcher)

    @cached_property
    def _dispatcher(self) -> Any:
        import numba

        settings: Any = numba.config
        compile_for = list(self.signatures) or None
        with _compiling:
            before = settings.CACHE_DIR
            settings.CACHE_DIR = str(self._cache_folder)
            try:
                # What others call is put into its callers: else each call counts references to every array it hands over.
                inside = compile_for is None
                options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "forceinline": inside, "_nrt": self.makes_arrays}
                return numba.njit(compile_for, cache=not inside, **options)(self.function)
            finally:
                settings.CACHE_DIR = before

    @cached_property
    def _cache_folder(self) -> Path:
        # numba looks only at the kernel's own file to tell whether its cache is stale, hence a folder for each state of the rest.
        return _cache_root() / f"{self.function.__module__}.{self.function.__qualname__}-{self._digest}"

    @cached_property
    def _digest(self) -> str:
        home = self.function.__module__
        stamp = os.stat(self.function.__code__.co_filename)
        digest = hashlib.sha256(f"{platform.python_version()} {version('numba')} {stamp.st_mtime_ns} {stamp.st_size}".encode())
        for name, value in sorted(_taken_by(self.function).items()):
            if isinstance(value, Compiled) and value.function.__module__ != home:
                digest.update(f"{name}={value._digest};".encode())
            elif isinstance(value, bool | int | float | tuple):
                digest.update(f"{name}={value!r};".encode())
        return digest.hexdigest()[:16]


def compiled(*signatures: str, makes_arrays: bool = True) -> Callable[[Callable[P, R]], Compiled[P, R]]:
    """Make a kernel of a function, compiled for these signatures and no others.

    Without a signature the function is for other kernels to call: compiled with each of them, for whatever they pass.

    With ``makes_arrays=False`` the kernel, and all it calls, only works on arrays it was given. These outlive the call, so no
    references need counting, which in a loop over small pieces of arrays may be half of the time. (One that makes an array all
    the same is refused by the compiler.)
    """

    def declare(function: Callable[P, R]) -> Compiled[P, R]:
        kernel = Compiled(function, signatures, makes_arrays)
        _declared.append(kernel)
        return kernel

    return declare


def cold_kernels() -> tuple[str, ...]:
    """Names of the kernels declared so far that are neither compiled nor in the cache: if there are any, a start takes longer."""
    return tuple(f"{k.function.__module__}.{k.function.__qualname__}" for k in _declared if k.signatures and k.is_cold)


def warm_up() -> None:
    """Compile every kernel declared so far, or load it from the cache: so that no batch waits for it later."""
    for kernel in _declared:
        if kernel.signatures:
            kernel.compile()


def _spell_out(signature: str) -> str:
    def array(found: re.Match[str]) -> str:
        return f"Array({found[1]}, {found[2].count(':') - 1}, 'C', readonly=True)"

    return re.sub(r"const (\w+)\[((?::, )*::1)\]", array, signature)


def _switched_off() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _taken_by(function: FunctionType) -> dict[str, Any]:
    """By name, what a kernel takes from its module, and what those of its module take that it calls."""
    found: dict[str, Any] = {}
    waiting = [function]
    while waiting:
        taking = waiting.pop()
        for name in _names_in(taking.__code__) & taking.__globals__.keys() - found.keys():
            value = found[name] = taking.__globals__[name]
            if isinstance(value, Compiled) and value.function.__module__ == function.__module__:
                waiting.append(value.function)
    return found


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


@cache
def _cache_root() -> Path:
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace" / "kernels"
    named = os.environ.get("NUMBA_CACHE_DIR")
    for folder in (Path(named), own) if named else (own,):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return _private_folder()


def _private_folder() -> Path:
    # Machine code is run as it is found: a folder somebody else could have made is never read.
    user = os.getuid() if sys.platform != "win32" else 0
    folder = Path(tempfile.gettempdir()) / f"millrace-kernels-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    stands = folder.stat()
    if sys.platform != "win32" and (stands.st_uid != user or stands.st_mode & 0o022):
        return Path(tempfile.mkdtemp(prefix="millrace-kernels-"))
    return folder
