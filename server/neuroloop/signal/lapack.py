"""Cholesky factor and inverse of a positive definite matrix by BLAS and LAPACK, without the interpreter's lock.

scipy's own wrappers hold it for the whole factorisation: 22 ms at 1024 channels, every one of which would stall the
loop that runs beside the solve. The same routines, called through ctypes at the addresses that
`scipy.linalg.cython_lapack` and `cython_blas` export, let it go. O(k^3).

`invert` is not LAPACK's `potrf` and `potri`. OpenBLAS solves with triangles at a third of the rate at which it
multiplies, and both routines are made of such solves: 9 + 20 ms at 1024 channels on one core. Factor and inverse factor
found together, half by half, need products only:

    L = [L11 0; L21 L22],  X = L^-1 = [X11 0; X21 X22]:   L21 = A21 X11^T,  A22 - L21 L21^T = L22 L22^T,
                                                          X21 = -X22 L21 X11,  A^-1 = X^T X

which is k^3 operations like theirs, in place, and takes 17 ms; k^3 operations at the rate of that core's matrix product
are 13.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_blas, cython_lapack

F64 = NDArray[np.float64]

_INT, _DOUBLES, _DOUBLE = ctypes.POINTER(ctypes.c_int), ctypes.c_void_p, ctypes.POINTER(ctypes.c_double)
_CHAR = ctypes.c_char_p


def _routine(module: Any, name: str, *arguments: Any) -> Any:
    capsule = module.__pyx_capi__[name]
    label, address = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    label.restype, label.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None, *arguments)(address(capsule, label(capsule)))


_potrf = _routine(cython_lapack, "dpotrf", _CHAR, _INT, _DOUBLES, _INT, _INT)
_trtri = _routine(cython_lapack, "dtrtri", _CHAR, _CHAR, _INT, _DOUBLES, _INT, _INT)
_lauum = _routine(cython_lapack, "dlauum", _CHAR, _INT, _DOUBLES, _INT, _INT)
_pocon = _routine(cython_lapack, "dpocon", _CHAR, _INT, _DOUBLES, _INT, _DOUBLE, _DOUBLE, _DOUBLES, _DOUBLES, _INT)
_trmm = _routine(cython_blas, "dtrmm", _CHAR, _CHAR, _CHAR, _CHAR, _INT, _INT, _DOUBLE, _DOUBLES, _INT, _DOUBLES, _INT)
_syrk = _routine(cython_blas, "dsyrk", _CHAR, _CHAR, _INT, _INT, _DOUBLE, _DOUBLES, _INT, _DOUBLE, _DOUBLES, _INT)

_TRIANGLE = b"L"  # of the transpose, which is what Fortran sees: the upper triangle here
_ONE, _MINUS = ctypes.c_double(1.0), ctypes.c_double(-1.0)
_LEAF = 64  # below this, what a call costs outweighs what a product saves


def cholesky(matrix: F64) -> tuple[F64, float] | None:
    """Cholesky factor in the upper triangle, and the reciprocal condition number (an estimate, in the 1-norm).

    matrix: (k, k) symmetric, not changed. Returns None where it is not numerically positive definite.
    What lies below the diagonal of the factor has no meaning.
    """
    factor = np.array(matrix, dtype=np.float64, order="C")
    size, info = ctypes.c_int(len(factor)), ctypes.c_int(0)
    norm, reciprocal = ctypes.c_double(float(np.abs(factor).sum(axis=0).max(initial=0.0))), ctypes.c_double(0.0)
    if not np.isfinite(norm.value):
        return None
    _potrf(_TRIANGLE, size, factor.ctypes.data, size, info)
    if info.value != 0:
        return None
    scratch, integers = np.empty(3 * len(factor)), np.empty(len(factor), np.intc)
    _pocon(_TRIANGLE, size, factor.ctypes.data, size, norm, reciprocal, scratch.ctypes.data, integers.ctypes.data, info)
    return factor, reciprocal.value


def invert(matrix: F64) -> bool:
    """Put the upper triangle of the inverse in the matrix's place; False where it is not positive definite.

    matrix: (k, k) float64, C-contiguous; only its upper triangle is read, and after a False it holds nothing.
    """
    size, info = ctypes.c_int(len(matrix)), ctypes.c_int(0)
    if not _invert_factor(matrix.ctypes.data, len(matrix), size):
        return False
    _lauum(_TRIANGLE, size, matrix.ctypes.data, size, info)
    return True


def _invert_factor(corner: int, length: int, stride: ctypes.c_int) -> bool:
    """The inverse of the Cholesky factor, in place; corner: address of the first element."""
    size, info = ctypes.c_int(length), ctypes.c_int(0)
    if length <= _LEAF:
        _potrf(_TRIANGLE, size, corner, stride, info)
        if info.value == 0:
            _trtri(_TRIANGLE, b"N", size, corner, stride, info)
        return info.value == 0
    half = -(-length // (2 * _LEAF)) * _LEAF  # whole leaves
    upper, lower = ctypes.c_int(half), ctypes.c_int(length - half)
    below = corner + 8 * half
    last = corner + 8 * half * (stride.value + 1)
    if not _invert_factor(corner, half, stride):
        return False
    _trmm(b"R", _TRIANGLE, b"T", b"N", lower, upper, _ONE, corner, stride, below, stride)
    _syrk(_TRIANGLE, b"N", lower, upper, _MINUS, below, stride, _ONE, last, stride)
    if not _invert_factor(last, length - half, stride):
        return False
    _trmm(b"L", _TRIANGLE, b"N", b"N", lower, upper, _MINUS, last, stride, below, stride)
    _trmm(b"R", _TRIANGLE, b"N", b"N", lower, upper, _ONE, corner, stride, below, stride)
    return True
