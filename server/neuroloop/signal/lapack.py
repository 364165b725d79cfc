"""Cholesky factor and inverse of a positive definite matrix by LAPACK, without holding the interpreter's lock.

scipy's own wrappers hold it for the whole factorisation: 22 ms at 1024 channels, every one of which would stall the
loop that runs beside the solve. The same routines, called through ctypes at the addresses that
`scipy.linalg.cython_lapack` exports, let it go. O(k^3).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_lapack

F64 = NDArray[np.float64]

_INT, _DOUBLES, _DOUBLE = ctypes.POINTER(ctypes.c_int), ctypes.c_void_p, ctypes.POINTER(ctypes.c_double)


def _routine(name: str, *arguments: Any) -> Any:
    capsule = cython_lapack.__pyx_capi__[name]
    label, address = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    label.restype, label.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address.restype, address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(None, *arguments)(address(capsule, label(capsule)))


_potrf = _routine("dpotrf", ctypes.c_char_p, _INT, _DOUBLES, _INT, _INT)
_potri = _routine("dpotri", ctypes.c_char_p, _INT, _DOUBLES, _INT, _INT)
_TRIANGLE = b"L"  # of the transpose, which is what Fortran sees: the upper triangle here
_pocon = _routine("dpocon", ctypes.c_char_p, _INT, _DOUBLES, _INT, _DOUBLE, _DOUBLE, _DOUBLES, _DOUBLES, _INT)


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


def inverse(factor: F64) -> F64:
    """Upper triangle of the inverse of the matrix that `cholesky` factorised, in the factor's place."""
    size, info = ctypes.c_int(len(factor)), ctypes.c_int(0)
    _potri(_TRIANGLE, size, factor.ctypes.data, size, info)
    return factor
