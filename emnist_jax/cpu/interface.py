"""XLA's C interface for custom calls, as far as it is used: xla/ffi/api/c_api.h.

Names and fields are those of the header, which a test reads and compares; only the
prefix `XLA_FFI_` is left out.
"""

from ctypes import Structure, c_int, c_int64, c_size_t, c_uint32, c_void_p

API_MAJOR, API_MINOR = 0, 3
EXTENSION_METADATA = 1


class Extension_Base(Structure):
    """One of a chain of additions to a call."""

    _fields_ = [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p)]


class _Extensible(Structure):
    _fields_ = [("struct_size", c_size_t), ("extension_start", c_void_p)]


class Api_Version(_Extensible):
    """Which version of the interface a handler was written for."""

    _fields_ = [("major_version", c_int), ("minor_version", c_int)]


class Metadata(Structure):
    """What a handler says of itself."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("api_version", Api_Version),
        ("traits", c_uint32),
        ("state_type_id", c_int64),
    ]


class Metadata_Extension(Structure):
    """The question for a handler's metadata."""

    _fields_ = [("extension_base", Extension_Base), ("metadata", c_void_p)]


class Buffer(_Extensible):
    """An array."""

    _fields_ = [
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", c_void_p),
    ]


class Args(_Extensible):
    """The arguments of a call."""

    _fields_ = [("size", c_int64), ("types", c_void_p), ("args", c_void_p)]


class Rets(_Extensible):
    """The results of a call."""

    _fields_ = [("size", c_int64), ("types", c_void_p), ("rets", c_void_p)]


class Attrs(_Extensible):
    """The attributes of a call."""

    _fields_ = [
        ("size", c_int64),
        ("types", c_void_p),
        ("names", c_void_p),
        ("attrs", c_void_p),
    ]


class CallFrame(_Extensible):
    """A call."""

    _fields_ = [
        ("api", c_void_p),
        ("ctx", c_void_p),
        ("stage", c_int),
        ("args", Args),
        ("rets", Rets),
        ("attrs", Attrs),
        ("future", c_void_p),
    ]


class ThreadPool_Schedule_Args(_Extensible):
    """A task for XLA's threads."""

    _fields_ = [("ctx", c_void_p), ("task", c_void_p), ("data", c_void_p)]


class Error_Destroy_Args(_Extensible):
    """An error that has been looked at."""

    _fields_ = [("error", c_void_p)]


class Api(_Extensible):
    """Functions of XLA."""

    _fields_ = [
        ("api_version", Api_Version),
        ("internal_api", c_void_p),
        ("Error_Create", c_void_p),
        ("Error_GetMessage", c_void_p),
        ("Error_Destroy", c_void_p),
        ("Handler_Register", c_void_p),
        ("Stream_Get", c_void_p),
        ("Type_Register", c_void_p),
        ("ExecutionContext_Get", c_void_p),
        ("State_Set", c_void_p),
        ("State_Get", c_void_p),
        ("DeviceMemory_Allocate", c_void_p),
        ("DeviceMemory_Free", c_void_p),
        ("ThreadPool_Schedule", c_void_p),
    ]
