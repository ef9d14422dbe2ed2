"""Machine code from LLVM's intermediate language, for the processor at hand."""

import llvmlite.binding as llvm


def host() -> tuple[str, str]:
    """Name and features of the processor, in LLVM's words."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def target_machine(processor: tuple[str, str] | None = None) -> llvm.TargetMachine:
    """What writes code for a processor, the host's if None."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = processor or host()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name, features=features, opt=3, jit=True
    )


def compile_module(
    source: str, processor: tuple[str, str] | None = None
) -> llvm.ExecutionEngine:
    """Machine code of a module, for as long as the engine is kept.

    It is never kept in a file: whoever can write that file could run code of theirs.
    The passes are those that these loops need; all of LLVM's -O2 take seven times as
    long, for code that is no faster.

    Args:
      source: the module's text.
      processor: name and features; the host's if None.
    """
    machine = target_machine(processor)  # the engine that takes it also frees it
    module = llvm.parse_assembly(source)
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_sroa_pass()
    passes.add_new_gvn_pass()
    passes.add_instruction_combine_pass()
    tuning = llvm.create_pipeline_tuning_options()
    passes.run(module, llvm.create_pass_builder(machine, tuning))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine
