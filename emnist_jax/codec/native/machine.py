"""Compiles the coder for the processor at hand."""

import ctypes

from emnist_jax.codec.native import coder, dots, program
from emnist_jax.cpu import machine_code

_CODE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_int64] * 3)
_FINISH = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)


class Machine:
    """A compiled program: an encoder or a decoder, of values or, if lossy, of spans.

    Attributes:
      group: activations in a 32-bit group.
      code: takes a job's table, its length, the first row that is to be coded and the
        row to stop at. Other threads run meanwhile.
      finish: the encoder's second half: takes a table and its length.
    """

    def __init__(
        self,
        encodes: bool,
        lossy: bool,
        form: dots.Form,
        processor: tuple[str, str],
        checked: bool,
    ):
        written = program.Program(checked)
        coder.Coder(written, form, encodes, lossy)
        self._engine = machine_code.compile_module(str(written.module), processor)
        self.group = form.group
        self.code = _CODE(self._engine.get_function_address("code"))
        if encodes:
            self.finish = _FINISH(self._engine.get_function_address("finish"))
