"""The exception classes."""

import pickle

import pytest

import pyshmkey
from pyshmkey import Error

SECOND_BASES: dict[str, type[Exception] | None] = {
    "KeyRevokedError": KeyError,
    "KeyExpiredError": KeyError,
    "PairExistsError": KeyError,
    "KeyIdConflictError": None,
    "StoreFullError": None,
    "KeyIdsExhaustedError": OverflowError,
    "StoreRemovedError": None,
    "CorruptStoreError": None,
    "IncompatibleStoreError": None,
    "InsecureStoreError": PermissionError,
    "ReadOnlyError": PermissionError,
    "TooManyWritersError": None,
    "ChangesLostError": None,
    "StoreBusyError": None,
    "StoreMovedError": None,
    "ExportFileError": ValueError,
}


def test_every_exception_is_listed_here() -> None:
    classes = {
        name
        for name, value in vars(pyshmkey).items()
        if isinstance(value, type) and issubclass(value, Error) and value is not Error
    }
    assert classes == set(SECOND_BASES)


@pytest.mark.parametrize(("name", "second"), SECOND_BASES.items())
def test_classes(name: str, second: type[Exception] | None) -> None:
    cls = getattr(pyshmkey, name)
    assert cls.__bases__ == ((Error,) if second is None else (Error, second))
    assert cls.__module__ == "pyshmkey"
    assert cls.__doc__
    assert name in pyshmkey.__all__
    error = cls("a 'message'")
    assert str(error) == "a 'message'"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert again.args == error.args
    with pytest.raises(Error):
        raise error


def test_permission_errors_carry_errno() -> None:
    error = pyshmkey.InsecureStoreError(13, "mode 0666")
    assert (error.errno, error.strerror) == (13, "mode 0666")
    assert str(error) == "[Errno 13] mode 0666"
